"""What a LoRA file holds for one network, by its header alone. Light: no torch, and of tensors only alphas are read.

So a file that does not fit is refused when a request names it, long before anything is computed. What does not belong
here: the names in a file (``lora_names``), the tensors themselves (``lora_changes``).
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from libs.errors import ModelFilesError
from libs.model_repo.json_file import parse_json
from libs.model_repo.parameters import Shape, TensorInfo, expected_parameters
from libs.model_repo.regular_file import open_regular
from libs.model_repo.safetensors_header import StoredTensor, read_tensors_and_metadata
from libs.model_repo.variants import ModelVariant
from libs.one_to_all.lora_file import lora_is_missing
from libs.one_to_all.lora_names import Part, kind_of_other_file, owners_of, understand_names
from libs.printable import printable

_ADAPTER_METADATA = "lora_adapter_metadata"
"""Where diffusers keeps peft's configuration in a file; other programs write a tensor ``alpha`` per module."""
_SHOWN_NAMES = 3
_LARGEST_SCALE = 1e6
"""Of alpha / rank; usual are 0.01 to 100. What is larger leaves no number in the network finite."""
_FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
_NUMBERS = {"F64": "<d", "F32": "<f", "F16": "<e", "I64": "<q", "I32": "<i", "I16": "<h", "I8": "<b", "U8": "<B"}
HADAMARD_PARTS: tuple[Part, ...] = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")


@dataclass
class StoredChange:
    """All that a file has for one module.

    ``scale`` is alpha / rank; it applies to products (LoRA, LoKr, LoHa) and not to whole differences.
    """

    names: dict[Part, str] = field(default_factory=dict)
    """Of the tensors in the file."""
    shapes: dict[Part, Shape] = field(default_factory=dict)
    scale: float = 1.0

    @property
    def is_hadamard(self) -> bool:
        """True for a LoHa: the element-wise product of two products, whose rank is the product of theirs."""
        return "hada_w1_a" in self.names


def read_contents(path: Path, parameters: Mapping[str, Shape]) -> dict[str, StoredChange]:
    """By module (see ``owners_of``) what the file at ``path`` has for a network with these ``parameters``.

    Raises:
        ModelFilesError: the file is missing or unreadable, holds names or shapes that this network does not have, lacks
            a part, or its alphas are no usable numbers.
    """
    try:
        tensors, metadata = read_tensors_and_metadata(path)
    except FileNotFoundError:
        raise lora_is_missing(path) from None
    except ModelFilesError as error:
        raise ModelFilesError(f"{error}; it cannot be read as a LoRA: fetch it again") from None
    except OSError as error:
        raise ModelFilesError(f"{path}: cannot be read ({error.strerror or error})") from error
    known, unknown = understand_names(tensors, owners_of(parameters))
    if unknown or not known:
        raise ModelFilesError(_not_for_this_network(path, unknown))
    changes: dict[str, StoredChange] = {}
    for name, (owner, part) in known.items():
        change = changes.setdefault(owner, StoredChange())
        if part in change.names:
            raise ModelFilesError(
                f"{path}: holds the {part} of {owner} twice, as {change.names[part]} and {name}; a file with one "
                "adapter is expected"
            )
        info = tensors[name].info
        _check_tensor(path, name, part, info)
        change.names[part], change.shapes[part] = name, info.shape
    alphas = _read_alphas(
        path, {owner: tensors[one.names["alpha"]] for owner, one in changes.items() if "alpha" in one.names}
    )
    configuration = _adapter_configuration(metadata, path)
    for owner, change in changes.items():
        _check_parts(path, owner, change)
        _check_shapes(path, owner, change, parameters)
        change.scale = _scale(path, owner, change, alphas.get(owner), configuration)
    return changes


def check_fits(path: Path, variant: ModelVariant) -> None:
    """Do nothing for a LoRA that can be used with ``variant``; read nothing but the file's header.

    Raises:
        ModelFilesError: see :func:`read_contents`.
    """
    read_contents(path, expected_parameters(variant.network))


def bytes_beside_fp8(path: Path, variant: ModelVariant, itemsize: int) -> int:
    """What a LoRA takes beside weights held in FP8, in a dtype of ``itemsize`` bytes; by the file's header.

    Factors of a LoRA take what they have in the file; both sides of a LoKr are multiplied out, a LoHa becomes a product
    (see :func:`hadamard_rank`), and what is no product a whole difference, one for each weight.

    Raises:
        ModelFilesError: see :func:`read_contents`.
    """
    parameters = expected_parameters(variant.network)
    total = 0
    for owner, change in read_contents(path, parameters).items():
        shapes = change.shapes
        weight, _ = weight_and_bias_of(owner, parameters)
        is_whole = "weight difference" in shapes
        if change.is_hadamard:
            rank = hadamard_rank(shapes, weight[0], math.prod(weight[1:]))
            is_whole |= rank is None
            total += 0 if rank is None else rank * (weight[0] + math.prod(weight[1:]))
        left, right = lokr_shape(shapes, "w1"), lokr_shape(shapes, "w2")
        if left and right and not is_whole:
            total += math.prod(left) + math.prod(right)
        total += math.prod(weight) if is_whole else 0
        kept: tuple[Part, ...] = ("down", "up", "bias difference", "up bias")
        total += sum(math.prod(shapes[part]) for part in kept if part in shapes)
    return total * itemsize


def hadamard_rank(shapes: Mapping[Part, Shape], rows: int, columns: int) -> int | None:
    """The rank of a LoHa as the product of two matrices, if these are smaller than the whole difference; else None.

    (a b) * (c d), element by element, has the rank of a b times that of c d.
    """
    rank = shapes["hada_w1_b"][0] * shapes["hada_w2_b"][0]
    return rank if rank * (rows + columns) < rows * columns else None


def weight_and_bias_of(owner: str, parameters: Mapping[str, Any]) -> tuple[Any, Any]:
    """What ``parameters`` has for a module; a parameter that belongs to none is a weight."""
    return parameters.get(f"{owner}.weight", parameters.get(owner)), parameters.get(f"{owner}.bias")


def _not_for_this_network(path: Path, unknown: list[str]) -> str:
    if not unknown:
        return f"{path}: holds no tensors"
    shown = ", ".join(map(printable, unknown[:_SHOWN_NAMES])) + (" and more" if len(unknown) > _SHOWN_NAMES else "")
    kind = kind_of_other_file(unknown)
    because = f"; this file {kind}" if kind else ""
    return (
        f"{path}: {len(unknown)} {'tensor says' if len(unknown) == 1 else 'tensors say'} nothing to this network: "
        f"{shown}{because}. A LoRA for Wan2.1 text-to-video of the same size, or for this network, is expected"
    )


def _check_tensor(path: Path, name: str, part: Part, info: TensorInfo) -> None:
    shown = list(info.shape)
    if part == "alpha":
        if math.prod(info.shape) != 1:
            raise ModelFilesError(f"{path}: {name} is not one number (shape {shown}); fetch the LoRA again")
        return
    if info.dtype not in _FLOATS:
        raise ModelFilesError(
            f"{path}: {name} holds {info.dtype}, which is not finite numbers in floating point; name a LoRA that is "
            "not quantized to integers"
        )
    is_factor = part not in {"weight difference", "bias difference", "up bias"}
    if not math.prod(info.shape) or (is_factor and len(info.shape) < 2):
        raise ModelFilesError(f"{path}: {name} has shape {shown}, which is no matrix; fetch the LoRA again")


def _check_parts(path: Path, owner: str, change: StoredChange) -> None:
    """Do the parts belong together?"""
    parts = change.names.keys()
    pairs: list[tuple[Part, Part]] = [("down", "up"), ("lokr_w1_a", "lokr_w1_b"), ("lokr_w2_a", "lokr_w2_b")]
    for pair in pairs:
        _require_all(path, owner, change, pair)
    if parts & {*HADAMARD_PARTS}:
        _require_all(path, owner, change, HADAMARD_PARTS)
    sides = [[one for one in (f"lokr_{side}", f"lokr_{side}_a") if one in parts] for side in ("w1", "w2")]
    if any(sides) and [len(one) for one in sides] != [1, 1]:
        raise ModelFilesError(
            f"{path}: has {', '.join(sides[0] + sides[1])} of {owner}; a LoKr has one lokr_w1 and one lokr_w2, each "
            "whole or as _a and _b; fetch it again"
        )
    products = [kind for kind in ("down", "hada_w1_a") if kind in parts] + (["lokr_w1"] if any(sides) else [])
    if len(products) > 1:
        raise ModelFilesError(f"{path}: changes {owner} in several ways at once ({', '.join(sorted(parts))})")
    if "up bias" in parts and "up" not in parts:
        raise ModelFilesError(f"{path}: has the up bias of {owner}, but not the up part")
    if parts == {"alpha"}:
        raise ModelFilesError(f"{path}: has the alpha of {owner}, and nothing that it is for; fetch the LoRA again")


def _require_all(path: Path, owner: str, change: StoredChange, wanted: tuple[Part, ...]) -> None:
    there = [part for part in wanted if part in change.names]
    lacking = [part for part in wanted if part not in change.names]
    if there and lacking:
        raise ModelFilesError(f"{path}: has the {there[0]} part of {owner}, but not the {lacking[0]} part")


def _check_shapes(path: Path, owner: str, change: StoredChange, parameters: Mapping[str, Shape]) -> None:
    """Do the parts fit the parameters they are for, and each other?"""
    shapes = change.shapes
    weight, bias = weight_and_bias_of(owner, parameters)
    expected: dict[Part, Shape | None] = {"weight difference": weight, "bias difference": bias, "up bias": bias}
    for part, shape in expected.items():
        if part in shapes and (shape is None or _without_ones(shapes[part]) != _without_ones(shape)):
            raise _wrong_shape(path, owner, [part], [shapes[part]], shape)
    is_matrix = weight is not None and len(weight) > 1
    if "down" in shapes:
        down, up = shapes["down"], shapes["up"]
        fits = is_matrix and up[:2] == (weight[0], down[0]) and math.prod(up[2:]) == 1
        if not (fits and _fits_columns(down[1:], weight)):
            raise _wrong_shape(path, owner, ["down", "up"], [down, up], weight)
    if change.is_hadamard:
        factors = [shapes[part] for part in HADAMARD_PARTS]
        fits = is_matrix and all(len(one) == 2 for one in factors)
        for a, b in ((factors[0], factors[1]), (factors[2], factors[3])):
            fits = fits and a == (weight[0], b[0]) and b[1] == math.prod(weight[1:])
        if not fits:
            raise _wrong_shape(path, owner, HADAMARD_PARTS, factors, weight)
    left, right = lokr_shape(shapes, "w1"), lokr_shape(shapes, "w2")
    if left and right:
        fits = is_matrix and left[0] * right[0] == weight[0] and left[1] * right[1] == math.prod(weight[1:])
        if not fits:
            raise _wrong_shape(path, owner, ["lokr_w1", "lokr_w2"], [left, right], weight)


def _without_ones(shape: Shape) -> Shape:
    """Some programs leave out, or add, the leading 1 of a table."""
    first = next((index for index, extent in enumerate(shape) if extent != 1), len(shape))
    return shape[first:]


def _fits_columns(columns: Shape, weight: Shape) -> bool:
    """Of a matrix, or of a convolution by its kernel or flattened."""
    return columns == weight[1:] or (len(columns) == 1 and columns[0] == math.prod(weight[1:]))


def lokr_shape(shapes: Mapping[Part, Shape], side: str) -> tuple[int, int] | None:
    """Rows and columns of one side of a Kronecker product, multiplied out; None if there is none, 0 if it is broken."""
    whole = shapes.get(f"lokr_{side}")  # type: ignore[call-overload]
    if whole is not None:
        return whole[0], math.prod(whole[1:])
    a, b = shapes.get(f"lokr_{side}_a"), shapes.get(f"lokr_{side}_b")  # type: ignore[call-overload]
    if a is None or b is None or len(a) != 2 or a[1] != b[0]:
        return None if a is None else (0, 0)
    return a[0], math.prod(b[1:])


def _wrong_shape(
    path: Path, owner: str, parts: Sequence[str], found: Sequence[Shape], expected: Shape | None
) -> ModelFilesError:
    shapes = " and ".join(str(list(shape)) for shape in found)
    fits = "nothing that it could be added to" if expected is None else f"[{', '.join(map(str, expected))}]"
    return ModelFilesError(
        f"{path}: the {' and '.join(parts)} of {owner} {'has shape' if len(parts) == 1 else 'have shapes'} {shapes}, "
        f"which does not fit {fits}; a LoRA for a network of this size is expected"
    )


def _read_alphas(path: Path, stored: Mapping[str, StoredTensor]) -> dict[str, float]:
    """The number of each module's alpha; they are a few bytes each."""
    alphas = {}
    with open_regular(path) as (file, _):
        for owner, tensor in stored.items():
            file.seek(tensor.first)
            alphas[owner] = number_of(file.read(tensor.last - tensor.first), tensor.info.dtype)
    return alphas


def number_of(data: bytes, dtype: str) -> float:
    """Of the few bytes of one number as safetensors holds it; NaN for a dtype that is none."""
    if dtype == "BF16":  # the upper half of a float32
        data, dtype = b"\0\0" + data, "F32"
    elif dtype == "F8_E5M2":  # the upper half of a float16
        data, dtype = b"\0" + data, "F16"
    elif dtype == "F8_E4M3":
        exponent, mantissa = data[0] >> 3 & 0xF, data[0] & 7
        value = math.ldexp(8 * (exponent > 0) + mantissa, max(exponent, 1) - 10)
        return math.nan if data[0] & 0x7F == 0x7F else -value if data[0] & 0x80 else value
    form = _NUMBERS.get(dtype)
    return math.nan if form is None else float(struct.unpack(form, data)[0])


def _adapter_configuration(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """peft's configuration as diffusers writes it, without the prefixes of the names."""
    configuration = parse_json(metadata.get(_ADAPTER_METADATA, "{}"), f"{path}: its {_ADAPTER_METADATA}")
    if not isinstance(configuration, dict):
        raise ModelFilesError(f"{path}: its {_ADAPTER_METADATA} is no mapping; fetch the LoRA again")
    return {name.removeprefix("transformer."): value for name, value in configuration.items()}


def _scale(
    path: Path, owner: str, change: StoredChange, alpha: float | None, configuration: Mapping[str, Any]
) -> float:
    """alpha / rank; a file that says nothing of alpha means alpha = rank."""
    rank = _rank(change)
    if rank is None:
        return 1.0
    found: Any = alpha
    if found is None:
        patterns = configuration.get("alpha_pattern") or {}
        if not isinstance(patterns, dict):
            raise ModelFilesError(f"{path}: the alpha_pattern of its {_ADAPTER_METADATA} is no mapping of numbers")
        found = next((value for name, value in patterns.items() if owner == name or owner.endswith(f".{name}")), None)
        found = configuration.get("lora_alpha", rank) if found is None else found
        where = f"its {_ADAPTER_METADATA} gives {owner} the alpha"
    else:
        where = f"{change.names['alpha']} is"
    number = _positive_number(found)
    scale = 0.0 if number is None else number / (math.sqrt(rank) if configuration.get("use_rslora") else rank)
    if not 0 < scale <= _LARGEST_SCALE:
        raise ModelFilesError(
            f"{path}: {where} {printable(repr(found))}; a number above 0 is expected, usually about the rank ({rank}). "
            "Fetch the LoRA again"
        )
    return scale


def _positive_number(value: Any) -> float | None:
    """``value`` if it is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def _rank(change: StoredChange) -> int | None:
    """By which alpha is divided; None where a file holds no product, or none of a rank (whole factors of a LoKr)."""
    if "down" in change.shapes:
        return change.shapes["down"][0]
    if "hada_w1_b" in change.shapes:
        return change.shapes["hada_w1_b"][0]
    for part in ("lokr_w2_b", "lokr_w1_b"):
        if part in change.shapes:
            return change.shapes[part][0]  # type: ignore[index]
    return None
