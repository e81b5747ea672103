"""Speed options: how the engine computes, where the result is the same (or, for FP8, nearly so). Light: no torch.

See ``compilation`` for applying them, and ``options`` for what a request may ask for.
"""

from dataclasses import dataclass
from typing import get_args

from libs.errors import SettingsError
from libs.settings import Settings
from libs.settings.values import AttentionName

ATTENTION_SETTING = "ONE_TO_ALL_ATTENTION"
ATTENTION_BACKENDS = tuple(name for name in get_args(AttentionName) if name != "auto")
"""Exact attention back-ends; ``native`` lets torch choose and works everywhere."""


@dataclass(frozen=True)
class SpeedOptions:
    """Speed options of one engine; they hold as long as it is loaded.

    Args:
        attention: ``auto`` takes the first of ``ATTENTION_BACKENDS`` that really works on the device; or one of them.
        compile_blocks: compile the repeated blocks; the first step of a new size then takes a minute longer.
        fp8_compute: form the products of FP8 weights in FP8, where the device can. Changes the result a little.

    Raises:
        SettingsError: there is no such attention.
    """

    attention: str = "auto"
    compile_blocks: bool = False
    fp8_compute: bool = False

    def __post_init__(self) -> None:
        if self.attention not in {"auto", *ATTENTION_BACKENDS}:
            raise SettingsError(
                f"{ATTENTION_SETTING}={self.attention!r} must be auto or one of {', '.join(ATTENTION_BACKENDS)}"
            )


DEFAULT_SPEED = SpeedOptions()


def speed_options(settings: Settings) -> SpeedOptions:
    """Read the speed options from the settings.

    Raises:
        SettingsError: see :class:`SpeedOptions`.
    """
    return SpeedOptions(settings.one_to_all_attention, settings.one_to_all_compile, settings.one_to_all_fp8_compute)
