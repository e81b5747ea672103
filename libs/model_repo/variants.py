"""The model variants: one frozen row each, holding everything that differs between them.

Repositories, folders, network size, default guidance and size limits. The sandbox is one more row, so that every line
of code runs the same path for it. Reads no disk and imports no torch.

Sources of the numbers: network sizes and default guidance from the reference implementation's configuration files and
inference scripts (upstream commit c6014ff, recorded in docs/specification.md#configurations).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from libs.errors import InputError

WeightFormat = Literal["plain", "fp8_scaled"]

FP8_SUFFIX = "-FP8"

LARGE_FACTOR = 1.25
"""How far a request may go above a variant's size limit: 576 becomes 720."""


@dataclass(frozen=True)
class NetworkConfig:
    """Size of one transformer; the fields are the arguments of ``OneToAllTransformer3DModel``.

    ``num_reference_layers`` reference blocks give ``num_reference_layers + 1`` reference features.
    """

    num_attention_heads: int
    num_layers: int
    ffn_dim: int
    num_control_layers: int
    num_reference_layers: int
    attention_head_dim: int = 128
    in_channels: int = 16
    out_channels: int = 16
    text_dim: int = 4096
    freq_dim: int = 256
    rope_max_seq_len: int = 1024


@dataclass(frozen=True)
class HubRepository:
    """A repository on a model hub; the same name on both hubs. ``revision`` None means the hub's default branch."""

    repo_id: str
    revision: str | None = None


@dataclass(frozen=True)
class SamplingDefaults:
    """Defaults of a request: steps, guidance (image, pose) and the short-side limit in pixels."""

    num_inference_steps: int
    image_guidance_scale: float
    pose_guidance_scale: float
    short_side_limit: int


@dataclass(frozen=True)
class ModelVariant:
    """Everything that is particular to one model variant.

    ``checkpoint`` and ``wan`` are None where the files are made by code (sandbox) or from another variant (FP8, whose
    ``base`` names that variant).
    """

    name: str
    folder: str
    network: NetworkConfig
    sampling: SamplingDefaults
    wan_folder: str
    checkpoint: HubRepository | None = None
    wan: HubRepository | None = None
    weight_format: WeightFormat = "plain"
    base: str | None = None

    def short_side_limit(self, *, allow_large: bool) -> int:
        """Pixels of the short side of a clip at most; above what the variant was trained for only on request."""
        return round(self.sampling.short_side_limit * (LARGE_FACTOR if allow_large else 1))

    @property
    def made_by_code(self) -> bool:
        """True for the sandbox: its files are written by ``libs.sandbox``, not downloaded."""
        return self.checkpoint is None and self.base is None


_NETWORK_14B = NetworkConfig(
    num_attention_heads=40, num_layers=40, ffn_dim=13824, num_control_layers=1, num_reference_layers=7
)
_NETWORK_1_3B = NetworkConfig(
    num_attention_heads=12, num_layers=30, ffn_dim=8960, num_control_layers=2, num_reference_layers=14
)
_NETWORK_SANDBOX = NetworkConfig(
    num_attention_heads=1,
    num_layers=4,
    ffn_dim=256,
    num_control_layers=1,
    num_reference_layers=1,
    text_dim=64,
)

_SAMPLING_14B = SamplingDefaults(30, 2.0, 1.5, 576)
_SAMPLING_1_3B = SamplingDefaults(30, 2.5, 1.5, 384)
_SAMPLING_SANDBOX = SamplingDefaults(4, 2.0, 1.5, 128)

_WAN_14B = HubRepository("Wan-AI/Wan2.1-T2V-14B-Diffusers")
_WAN_1_3B = HubRepository("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")

DWPOSE_SOURCE = HubRepository("FrancisRing/StableAnimator")
POSE_NETWORKS_SOURCE = HubRepository("Wan-AI/Wan2.2-Animate-14B")


def _plain_variants() -> tuple[ModelVariant, ...]:
    return (
        ModelVariant(
            name="14b",
            folder="One-to-All-14b",
            network=_NETWORK_14B,
            sampling=_SAMPLING_14B,
            wan_folder="Wan2.1-T2V-14B-Diffusers",
            checkpoint=HubRepository("MochunniaN1/One-to-All-14b"),
            wan=_WAN_14B,
        ),
        *(
            ModelVariant(
                name=name,
                folder=f"One-to-All-{name}",
                network=_NETWORK_1_3B,
                sampling=_SAMPLING_1_3B,
                wan_folder="Wan2.1-T2V-1.3B-Diffusers",
                checkpoint=HubRepository(f"MochunniaN1/One-to-All-{name}"),
                wan=_WAN_1_3B,
            )
            for name in ("1.3b_1", "1.3b_2")
        ),
        ModelVariant(
            name="sandbox",
            folder="One-to-All-sandbox",
            network=_NETWORK_SANDBOX,
            sampling=_SAMPLING_SANDBOX,
            wan_folder="Wan2.1-T2V-sandbox-Diffusers",
        ),
    )


def _fp8_of(variant: ModelVariant) -> ModelVariant:
    return replace(
        variant,
        name=f"{variant.name}{FP8_SUFFIX.lower()}",
        folder=f"{variant.folder}{FP8_SUFFIX}",
        checkpoint=None,
        wan=None,
        weight_format="fp8_scaled",
        base=variant.name,
    )


def _all_variants() -> Mapping[str, ModelVariant]:
    plain = _plain_variants()
    rows = (*plain, *(_fp8_of(variant) for variant in plain))
    return MappingProxyType({variant.name: variant for variant in rows})


VARIANTS: Mapping[str, ModelVariant] = _all_variants()


def get_variant(name: str) -> ModelVariant:
    """The row of ``name``.

    Raises:
        InputError: no such variant; the message lists those there are.
    """
    try:
        return VARIANTS[name]
    except KeyError:
        raise InputError(f"unknown model variant {name!r}; known variants: {', '.join(VARIANTS)}") from None


def variant_of_folder(folder: str) -> ModelVariant:
    """The row whose folder below MODELS_DIR is called ``folder``.

    Raises:
        InputError: no variant lives in a folder of this name.
    """
    for variant in VARIANTS.values():
        if variant.folder == folder:
            return variant
    known = ", ".join(variant.folder for variant in VARIANTS.values())
    raise InputError(f"no model variant lives in a folder called {folder!r}; known folders: {known}")
