"""Presets: names for combinations of sampling fields, so that a request need not spell them out. Light: no torch.

A preset only fills fields that a request leaves out. A resolved request holds the values and not the name, so a change
of this table makes no finished clip stale.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal

from libs.one_to_all.sampling.schedule import (
    DISTILLED_SHIFT,
    DISTILLED_STEPS,
    SHIFT,
    SamplerName,
    ScheduleName,
)

PresetName = Literal["fast-4", "fast-6", "fast-8", "fast-6-pose", "fast-8-pose"]

STEP_DISTILL_LORA = "step-distill"
"""What a preset calls the LoRA it needs; a request may name another file in its place."""


@dataclass(frozen=True)
class Preset:
    """Fields of a request that belong together."""

    steps: int
    schedule: ScheduleName
    shift: float
    image_guidance: float = 1.0
    pose_guidance: float = 1.0
    pose_guidance_alone: bool = False
    sampler: SamplerName = "euler"
    lora: str = STEP_DISTILL_LORA

    def fields(self) -> dict[str, Any]:
        """The fields by their names in a request."""
        return asdict(self)


PRESETS: Mapping[PresetName, Preset] = MappingProxyType(
    {
        "fast-4": Preset(DISTILLED_STEPS, "distilled", DISTILLED_SHIFT),
        "fast-6": Preset(6, "linear", SHIFT),
        "fast-8": Preset(8, "linear", SHIFT),
        "fast-6-pose": Preset(6, "linear", SHIFT, pose_guidance=1.5, pose_guidance_alone=True),
        "fast-8-pose": Preset(8, "linear", SHIFT, pose_guidance=1.5, pose_guidance_alone=True),
    }
)
"""What people who publish setups for this network use: 6 or 8 steps with a step-distilled LoRA; 4 are those for which
such LoRAs were trained. Nobody has looked at clips of these with the real weights here."""
