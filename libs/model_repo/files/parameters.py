"""Which tensors a checkpoint of a variant holds: every name, shape and permitted dtype, computed from its network size.

Pure arithmetic over :class:`NetworkConfig`, so that a checkpoint of 50 GB is checked against it in milliseconds and
without torch. See ``libs.one_to_all.network.transformer`` for the network itself, ``safetensors_header`` for reading
files.

Source of names and shapes: docs/specification.md#module-tree; equal to ``state_dict_14b.json.gz`` and
``state_dict_1.3b.json.gz``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from libs.model_repo.variants import ModelVariant, NetworkConfig

Shape = tuple[int, ...]

PLAIN_DTYPES = frozenset({"BF16", "F16", "F32"})
FP8_DTYPES = frozenset({"F8_E4M3", "F8_E5M2"})
SCALE_DTYPES = frozenset({"F16", "BF16", "F32"})
SCALE_SUFFIX = ".scale_weight"
WEIGHT_SUFFIX = ".weight"

_PATCH = (1, 2, 2)
_TIME_PROJECTIONS = 6
_ENCODER_CHANNELS = 16
_CAUSAL_KERNEL = (3, 3, 3)
_IMAGE_KERNEL = (3, 3)
_EMBEDDING_LIKE = ("patch_embedding", "condition_embedder")


def expected_parameters(network: NetworkConfig) -> dict[str, Shape]:
    """Name -> shape of every tensor in the plain state dict of ``network``."""
    return dict(_parameters(network))


def scale_name(weight: str) -> str:
    """Name of the FP8 scale that belongs to ``weight``: ``a.b.weight`` -> ``a.b.scale_weight``."""
    return weight.removesuffix(WEIGHT_SUFFIX) + SCALE_SUFFIX


def is_quantized(name: str, shape: Shape) -> bool:
    """True for the weights this project stores in FP8: those of every linear layer but the embedding-like ones.

    Patch embeddings and the time and text embedders are small, and their error reaches every token. The convolutions of
    the two small encoders are not linear layers and stay as they are.
    """
    if not name.endswith(WEIGHT_SUFFIX) or len(shape) != 2:
        return False
    return not any(part in name.split(".") for part in _EMBEDDING_LIKE)


class TensorInfo(NamedTuple):
    """What a safetensors header says of one tensor; ``dtype`` in safetensors' spelling (``BF16``)."""

    dtype: str
    shape: Shape


@dataclass(frozen=True)
class TensorProblem:
    """One tensor that is not as the manifest wants it; ``absent`` tells a missing one from a wrong one."""

    name: str
    message: str
    absent: bool = False


def compare_tensors(variant: ModelVariant, found: Mapping[str, TensorInfo]) -> list[TensorProblem]:
    """Every difference between a checkpoint's tensors and the manifest of ``variant``, in the order of names.

    An FP8 checkpoint may keep any weight unquantized and may use e4m3 or e5m2, with one scale per tensor or per output
    channel, so that files made elsewhere pass; but it must hold at least one FP8 weight, and no scale without one.
    """
    expected = expected_parameters(variant.network)
    quantized = {name for name, tensor in found.items() if tensor.dtype in FP8_DTYPES}
    scales = {scale_name(name) for name in quantized}
    takes_fp8 = variant.weight_format == "fp8_scaled"
    problems = []
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            problems.append(TensorProblem(name, f"{name} is missing", absent=True))
        elif name in expected:
            problems += _compare_tensor(name, expected[name], found[name], takes_fp8)
        elif takes_fp8 and name in scales:
            problems += _compare_scale(name, expected.get(_weight_of(name)), found[name])
        elif not (takes_fp8 and name == "scaled_fp8"):
            problems.append(TensorProblem(name, f"{name} is not a parameter of {variant.name}"))
    if takes_fp8 and not quantized:
        problems.append(TensorProblem("", f"no weight is stored in FP8, but {variant.name} is an FP8 variant"))
    return problems


def _weight_of(scale: str) -> str:
    return scale.removesuffix(SCALE_SUFFIX) + WEIGHT_SUFFIX


def _compare_tensor(name: str, shape: Shape, found: TensorInfo, takes_fp8: bool) -> Iterator[TensorProblem]:
    if found.shape != shape:
        yield TensorProblem(name, f"{name} has shape {list(found.shape)}, expected {list(shape)}")
    permitted = PLAIN_DTYPES
    if takes_fp8 and name.endswith(WEIGHT_SUFFIX) and len(shape) >= 2:
        permitted |= FP8_DTYPES
    if found.dtype not in permitted:
        yield TensorProblem(name, f"{name} has dtype {found.dtype}, expected one of {', '.join(sorted(permitted))}")


def _compare_scale(name: str, weight: Shape | None, found: TensorInfo) -> Iterator[TensorProblem]:
    if found.dtype not in SCALE_DTYPES:
        yield TensorProblem(name, f"{name} has dtype {found.dtype}, expected one of {', '.join(sorted(SCALE_DTYPES))}")
    if weight is None:
        return
    per_channel = (weight[0], *(1 for _ in weight[1:]))
    if found.shape not in {(), (1,), (weight[0],), per_channel}:
        yield TensorProblem(
            name, f"{name} has shape {list(found.shape)}, expected one scale or {weight[0]}, one per output channel"
        )


def _parameters(network: NetworkConfig) -> Iterator[tuple[str, Shape]]:
    width = network.num_attention_heads * network.attention_head_dim
    conditioning_channels = 2 * network.in_channels  # image latents and mask latents
    yield "scale_shift_table", (1, 2, width)
    yield from _weight_and_bias("patch_embedding", (width, network.in_channels, *_PATCH))
    yield from _time_embedder("condition_embedder", network, width)
    yield from _linear("condition_embedder.text_embedder.linear_1", network.text_dim, width)
    yield from _linear("condition_embedder.text_embedder.linear_2", width, width)
    for index in range(network.num_layers):
        yield from _main_block(f"blocks.{index}", network, width)
    yield from _linear("proj_out", width, network.out_channels * _PATCH[0] * _PATCH[1] * _PATCH[2])
    yield from _pose_encoder("input_hint_block", width)
    for index in range(network.num_control_layers):
        yield from _self_attention_block(f"controlnet.blocks.{index}", network, width)
        yield from _linear(f"controlnet_zero.{index}", width, width)
    yield from _weight_and_bias("refextractor.patch_embedding", (width, conditioning_channels, *_PATCH))
    yield from _time_embedder("refextractor.condition_embedder", network, width)
    for index in range(network.num_reference_layers):
        yield from _self_attention_block(f"refextractor.blocks.{index}", network, width)
    for index in range(network.num_reference_layers + 1):
        yield from _linear(f"refextractor.ref_blocks.{index}", width, width)
    yield from _prefix_encoder("image_to_cond", conditioning_channels, network.in_channels)


def _weight_and_bias(prefix: str, shape: Shape) -> Iterator[tuple[str, Shape]]:
    yield f"{prefix}.weight", shape
    yield f"{prefix}.bias", shape[:1]


def _linear(prefix: str, inputs: int, outputs: int) -> Iterator[tuple[str, Shape]]:
    yield from _weight_and_bias(prefix, (outputs, inputs))


def _time_embedder(prefix: str, network: NetworkConfig, width: int) -> Iterator[tuple[str, Shape]]:
    yield from _linear(f"{prefix}.time_embedder.linear_1", network.freq_dim, width)
    yield from _linear(f"{prefix}.time_embedder.linear_2", width, width)
    yield from _linear(f"{prefix}.time_proj", width, _TIME_PROJECTIONS * width)


def _attention(prefix: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{prefix}.norm_q.weight", (width,)
    yield f"{prefix}.norm_k.weight", (width,)
    for projection in ("to_q", "to_k", "to_v", "to_out.0"):
        yield from _linear(f"{prefix}.{projection}", width, width)


def _self_attention_block(prefix: str, network: NetworkConfig, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{prefix}.scale_shift_table", (1, _TIME_PROJECTIONS, width)
    yield from _attention(f"{prefix}.attn1", width)
    yield from _linear(f"{prefix}.ffn.net.0.proj", width, network.ffn_dim)
    yield from _linear(f"{prefix}.ffn.net.2", network.ffn_dim, width)


def _main_block(prefix: str, network: NetworkConfig, width: int) -> Iterator[tuple[str, Shape]]:
    yield from _self_attention_block(prefix, network, width)
    yield from _linear(f"{prefix}.attn1.add_k_proj", width, width)
    yield from _linear(f"{prefix}.attn1.add_v_proj", width, width)
    yield f"{prefix}.attn1.norm_added_k.weight", (width,)
    yield from _attention(f"{prefix}.attn2", width)
    yield from _weight_and_bias(f"{prefix}.norm2", (width,))


def _residual_unit(prefix: str, kernel: Shape, convolution: str) -> Iterator[tuple[str, Shape]]:
    for index in (1, 2):
        yield from _weight_and_bias(f"{prefix}.norm{index}", (_ENCODER_CHANNELS,))
        yield from _weight_and_bias(
            f"{prefix}.conv{index}{convolution}", (_ENCODER_CHANNELS, _ENCODER_CHANNELS, *kernel)
        )


def _pose_encoder(prefix: str, width: int) -> Iterator[tuple[str, Shape]]:
    channels = _ENCODER_CHANNELS
    yield from _weight_and_bias(f"{prefix}.conv_in.conv", (channels, 3, *_CAUSAL_KERNEL))
    for stage in range(4):
        block = f"{prefix}.down_blocks.{stage}"
        yield from _residual_unit(f"{block}.resnets.0", _CAUSAL_KERNEL, ".conv")
        yield from _weight_and_bias(f"{block}.downsamplers.0.conv.conv", (channels, channels, *_CAUSAL_KERNEL))
    yield from _weight_and_bias(f"{prefix}.conv_out.conv", (width, channels, *_CAUSAL_KERNEL))


def _prefix_encoder(prefix: str, inputs: int, outputs: int) -> Iterator[tuple[str, Shape]]:
    yield from _weight_and_bias(f"{prefix}.conv_in", (_ENCODER_CHANNELS, inputs, *_IMAGE_KERNEL))
    for stage in range(3):
        yield from _residual_unit(f"{prefix}.down_blocks.{stage}.resnets.0", _IMAGE_KERNEL, "")
    yield from _weight_and_bias(f"{prefix}.conv_out", (outputs, _ENCODER_CHANNELS, *_IMAGE_KERNEL))
