"""A LoRA file: which one, what it holds for a network, and whether it fits. Light: no torch.

Everything but the finiteness of the numbers is known from the header, so a file that does not fit is refused when a
request names it, long before anything is computed. See ``lora_names`` for how tensors are named, and ``lora`` for
reading the tensors and adding them to a network.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from libs.errors import InputError, ModelFilesError
from libs.files.json_file import parse_json
from libs.files.regular_file import open_regular
from libs.messages.printable import printable
from libs.model_repo.files.parameters import Shape, TensorInfo, expected_parameters
from libs.model_repo.files.safetensors_header import StoredTensor, read_tensors_and_metadata
from libs.model_repo.variants import ModelVariant
from libs.model_repo.verification.digests import DigestCache, Signature
from libs.one_to_all.weights.lora_names import (
    LoraPart,
    changes_otherwise,
    describe_other_file,
    match_names,
    targets_of,
)

LoraIdentity = tuple[tuple[Path, Signature, float], ...]

CHECKED_VALUES_CACHE = ".lora_values.json"
"""File beside the repositories that says which LoRAs were read through, by their signatures."""

LARGEST_VALUE = 1e8
"""Usual are below 10. Four factors of this size still give a finite product in float32."""

HADAMARD_PARTS: tuple[LoraPart, ...] = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
"""The four factors of a LoHa."""

_ADAPTER_METADATA = "lora_adapter_metadata"
"""Where diffusers keeps peft's configuration in a file; other programs write a tensor ``alpha`` per module."""
_SHOWN_NAMES = 3
_LARGEST_SCALE = 1e6
"""Of alpha / rank; usual are 0.01 to 100. What is larger leaves no number in the network finite."""
_FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
_STRUCT_FORMATS = {"F64": "<d", "F32": "<f", "F16": "<e", "I64": "<q", "I32": "<i", "I16": "<h", "I8": "<b", "U8": "<B"}
_NUMPY_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_FP8_DTYPES = frozenset({"F8_E4M3", "F8_E5M2"})
_CHECKED = f"at most {LARGEST_VALUE:g}"
_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class LoraFile:
    """A LoRA as a request asks for it: a safetensors file, and the strength it is added with (1 as it was trained).

    Args:
        path: of the file.
        strength: times the change.
        strict: False leaves out tensors that fit no module of the network.
        others: LoRAs that are added after it, without others of their own.

    Raises:
        InputError: the strength is no number.
    """

    path: Path
    strength: float = 1.0
    strict: bool = True
    others: tuple["LoraFile", ...] = ()

    def __post_init__(self) -> None:
        if not math.isfinite(self.strength):
            raise InputError(f"LoRA {self.path.name}: strength={self.strength} must be a number")

    @property
    def name(self) -> str:
        """The name that requests use: the file's name without its ending."""
        return self.path.stem

    @property
    def all(self) -> tuple["LoraFile", ...]:
        """It and the others, in the order in which they are added."""
        return self, *self.others

    def __str__(self) -> str:
        return " and ".join(f"{one.name} at strength {one.strength}" for one in self.all)

    def identity(self) -> LoraIdentity:
        """Path, signature of the file and strength of each: equal where a network needs no change.

        Raises:
            ModelFilesError: there is no such file.
        """
        return tuple((one.path, _signature(one.path), one.strength) for one in self.all)


def _signature(path: Path) -> Signature:
    try:
        return Signature.of(path)
    except FileNotFoundError:
        raise lora_is_missing(path) from None


def lora_is_missing(path: Path) -> ModelFilesError:
    """The error for a file that is not there."""
    return ModelFilesError(f"{path}: is missing; put the LoRA there, or name another one")


@dataclass
class StoredDelta:
    """What a file holds for one target, by its header.

    Attributes:
        names: of the tensors in the file, by part.
        shapes: of these tensors.
        scale: alpha / rank; it applies to products (LoRA, LoKr, LoHa) and not to whole differences.
    """

    names: dict[LoraPart, str] = field(default_factory=dict)
    shapes: dict[LoraPart, Shape] = field(default_factory=dict)
    scale: float = 1.0

    @property
    def is_hadamard(self) -> bool:
        """Whether it is a LoHa: the element-wise product of two products, whose rank is the product of their ranks."""
        return "hada_w1_a" in self.names


@dataclass(frozen=True)
class LoraContents:
    """What a file holds for a network.

    Attributes:
        deltas: by target (``targets_of``).
        skipped: names of tensors that fit no module, sorted; only of a file that need not fit strictly.
    """

    deltas: Mapping[str, StoredDelta]
    skipped: tuple[str, ...] = ()


def read_contents(path: Path, parameters: Mapping[str, Shape], *, strict: bool = True) -> LoraContents:
    """Read the header of a LoRA: what it holds for a network with these ``parameters``.

    Args:
        path: of the file.
        parameters: of the network, name -> shape.
        strict: False skips tensors whose names or shapes this network does not have, unless none would be left.

    Raises:
        ModelFilesError: the file is missing or unreadable, holds names or shapes that this network does not have, lacks
            a part, or its alphas are not usable numbers.
    """
    try:
        tensors, metadata = read_tensors_and_metadata(path)
    except FileNotFoundError:
        raise lora_is_missing(path) from None
    except ModelFilesError as error:
        raise ModelFilesError(f"{error}; it cannot be read as a LoRA: fetch it again") from None
    except OSError as error:
        raise ModelFilesError(f"{path}: cannot be read ({error.strerror or error})") from error
    known, unknown = match_names(tensors, targets_of(parameters))
    if not known or (unknown and (strict or any(map(changes_otherwise, unknown)))):
        raise ModelFilesError(_not_for_this_network(path, unknown))
    deltas: dict[str, StoredDelta] = {}
    for name, (target, part) in known.items():
        delta = deltas.setdefault(target, StoredDelta())
        if part in delta.names:
            raise ModelFilesError(
                f"{path}: holds the {part} of {target} twice, as {delta.names[part]} and {name}; a file with one "
                "adapter is expected"
            )
        info = tensors[name].info
        _check_tensor(path, name, part, info)
        delta.names[part], delta.shapes[part] = name, info.shape
    alphas = _read_alphas(
        path, {target: tensors[one.names["alpha"]] for target, one in deltas.items() if "alpha" in one.names}
    )
    configuration = _adapter_configuration(metadata, path)
    skipped, of_another_shape = list(unknown), None
    for target, delta in list(deltas.items()):
        _check_parts(path, target, delta)
        try:
            _check_shapes(path, target, delta, parameters)
        except ModelFilesError as error:
            if strict:
                raise
            of_another_shape = error
            skipped += delta.names.values()
            del deltas[target]
            continue
        delta.scale = _scale(path, target, delta, alphas.get(target), configuration)
    if not deltas and of_another_shape is not None:
        raise of_another_shape
    return LoraContents(deltas, tuple(sorted(skipped)))


def check_fits(path: Path, variant: ModelVariant, *, strict: bool = True) -> tuple[str, ...]:
    """Return the names of skipped tensors; raise unless the LoRA at ``path`` can be used with ``variant``.

    Raises:
        ModelFilesError: see :func:`read_contents`.
    """
    return read_contents(path, expected_parameters(variant.network), strict=strict).skipped


def describe_skipped(skipped: Sequence[str]) -> str:
    """Say how many tensors of a file are skipped, and name the first."""
    shown = ", ".join(map(printable, skipped[:_SHOWN_NAMES])) + (" and more" if len(skipped) > _SHOWN_NAMES else "")
    return f"{len(skipped)} {'tensor fits' if len(skipped) == 1 else 'tensors fit'} no module and are skipped: {shown}"


def bytes_beside_fp8(lora: LoraFile, variant: ModelVariant, itemsize: int) -> int:
    """Bytes of unfused LoRAs beside FP8 weights, in a dtype of ``itemsize`` bytes, by the header of the file.

    Factors of a LoRA have the size that they have in the file; both sides of a LoKr are multiplied out, a LoHa becomes
    a product (see :func:`hadamard_rank`), and what is no product is one whole delta for each weight.

    Raises:
        ModelFilesError: see :func:`read_contents`.
    """
    parameters = expected_parameters(variant.network)
    by_target: dict[str, list[StoredDelta]] = {}
    for one in lora.all:
        for target, delta in read_contents(one.path, parameters, strict=one.strict).deltas.items():
            by_target.setdefault(target, []).append(delta)
    return sum(_values_beside(target, deltas, parameters) for target, deltas in by_target.items()) * itemsize


def _values_beside(target: str, deltas: Sequence[StoredDelta], parameters: Mapping[str, Shape]) -> int:
    """Count the values that the deltas of one target keep beside its weight."""
    weight, _ = weight_and_bias_of(target, parameters)
    kept: tuple[LoraPart, ...] = ("down", "up", "bias difference", "up bias")
    total, products = 0, []
    for delta in deltas:
        is_whole = "weight difference" in delta.shapes
        if delta.is_hadamard:
            rows, columns = weight[0], math.prod(weight[1:])
            rank = hadamard_rank(delta.shapes, rows, columns)
            is_whole |= rank is None
            total += 0 if rank is None else rank * (rows + columns)
        left, right = lokr_shape(delta.shapes, "w1"), lokr_shape(delta.shapes, "w2")
        if is_whole:
            products.append(math.prod(weight))
        elif left and right:
            products.append(math.prod(left) + math.prod(right))
        total += sum(math.prod(delta.shapes[part]) for part in kept if part in delta.shapes)
    # one product is kept as it is, the sum of several as a whole
    return total + (products[0] if len(products) == 1 else math.prod(weight) if products else 0)


def hadamard_rank(shapes: Mapping[LoraPart, Shape], rows: int, columns: int) -> int | None:
    """The rank of a LoHa as the product of two matrices, if these are smaller than the whole difference; else None.

    (a b) * (c d), element by element, has the rank of a b times that of c d.
    """
    rank = shapes["hada_w1_b"][0] * shapes["hada_w2_b"][0]
    return rank if rank * (rows + columns) < rows * columns else None


def weight_and_bias_of(target: str, parameters: Mapping[str, Any]) -> tuple[Any, Any]:
    """Weight and bias among ``parameters`` of a target; a parameter that belongs to no module counts as a weight."""
    return parameters.get(f"{target}.weight", parameters.get(target)), parameters.get(f"{target}.bias")


def _not_for_this_network(path: Path, unknown: list[str]) -> str:
    if not unknown:
        return f"{path}: holds no tensors"
    shown = ", ".join(map(printable, unknown[:_SHOWN_NAMES])) + (" and more" if len(unknown) > _SHOWN_NAMES else "")
    kind = describe_other_file(unknown)
    because = f"; this file {kind}" if kind else ""
    return (
        f"{path}: {len(unknown)} {'tensor matches' if len(unknown) == 1 else 'tensors match'} no module of this "
        f"network: {shown}{because}. A LoRA for Wan2.1 text-to-video of the same size, or for this network, is expected"
    )


def _check_tensor(path: Path, name: str, part: LoraPart, info: TensorInfo) -> None:
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
        raise ModelFilesError(f"{path}: {name} has shape {shown}, which is not a matrix; fetch the LoRA again")


def _check_parts(path: Path, target: str, delta: StoredDelta) -> None:
    """Raise unless the parts belong together."""
    parts = delta.names.keys()
    pairs: list[tuple[LoraPart, LoraPart]] = [("down", "up"), ("lokr_w1_a", "lokr_w1_b"), ("lokr_w2_a", "lokr_w2_b")]
    for pair in pairs:
        _require_all(path, target, delta, pair)
    if parts & {*HADAMARD_PARTS}:
        _require_all(path, target, delta, HADAMARD_PARTS)
    sides = [[one for one in (f"lokr_{side}", f"lokr_{side}_a") if one in parts] for side in ("w1", "w2")]
    if any(sides) and [len(one) for one in sides] != [1, 1]:
        raise ModelFilesError(
            f"{path}: has {', '.join(sides[0] + sides[1])} of {target}; a LoKr has one lokr_w1 and one lokr_w2, each "
            "whole or as _a and _b; fetch it again"
        )
    products = [kind for kind in ("down", "hada_w1_a") if kind in parts] + (["lokr_w1"] if any(sides) else [])
    if len(products) > 1:
        raise ModelFilesError(
            f"{path}: changes {target} by several kinds of parts at once ({', '.join(sorted(parts))})"
        )
    if "up bias" in parts and "up" not in parts:
        raise ModelFilesError(f"{path}: has the up bias of {target}, but not the up part")
    if parts == {"alpha"}:
        raise ModelFilesError(
            f"{path}: has the alpha of {target}, but not the factors that it scales; fetch the LoRA again"
        )


def _require_all(path: Path, target: str, delta: StoredDelta, wanted: tuple[LoraPart, ...]) -> None:
    there = [part for part in wanted if part in delta.names]
    lacking = [part for part in wanted if part not in delta.names]
    if there and lacking:
        raise ModelFilesError(f"{path}: has the {there[0]} part of {target}, but not the {lacking[0]} part")


def _check_shapes(path: Path, target: str, delta: StoredDelta, parameters: Mapping[str, Shape]) -> None:
    """Raise unless the parts fit the parameters of their target, and each other."""
    shapes = delta.shapes
    weight, bias = weight_and_bias_of(target, parameters)
    expected: dict[LoraPart, Shape | None] = {"weight difference": weight, "bias difference": bias, "up bias": bias}
    for part, shape in expected.items():
        if part in shapes and (shape is None or _without_ones(shapes[part]) != _without_ones(shape)):
            raise _wrong_shape(path, target, [part], [shapes[part]], shape)
    is_matrix = weight is not None and len(weight) > 1
    if "down" in shapes:
        down, up = shapes["down"], shapes["up"]
        fits = is_matrix and up[:2] == (weight[0], down[0]) and math.prod(up[2:]) == 1
        if not (fits and _fits_columns(down[1:], weight)):
            raise _wrong_shape(path, target, ["down", "up"], [down, up], weight)
    if delta.is_hadamard:
        factors = [shapes[part] for part in HADAMARD_PARTS]
        fits = is_matrix and all(len(one) == 2 for one in factors)
        for a, b in ((factors[0], factors[1]), (factors[2], factors[3])):
            fits = fits and a == (weight[0], b[0]) and b[1] == math.prod(weight[1:])
        if not fits:
            raise _wrong_shape(path, target, HADAMARD_PARTS, factors, weight)
    left, right = lokr_shape(shapes, "w1"), lokr_shape(shapes, "w2")
    if left and right:
        fits = is_matrix and left[0] * right[0] == weight[0] and left[1] * right[1] == math.prod(weight[1:])
        if not fits:
            raise _wrong_shape(path, target, ["lokr_w1", "lokr_w2"], [left, right], weight)


def _without_ones(shape: Shape) -> Shape:
    """The shape without leading ones: some programs leave out, or add, the leading 1 of a table."""
    first = next((index for index, extent in enumerate(shape) if extent != 1), len(shape))
    return shape[first:]


def _fits_columns(columns: Shape, weight: Shape) -> bool:
    """Whether ``columns`` are those of a matrix, or of a convolution by its kernel or flattened."""
    return columns == weight[1:] or (len(columns) == 1 and columns[0] == math.prod(weight[1:]))


def lokr_shape(shapes: Mapping[LoraPart, Shape], side: str) -> tuple[int, int] | None:
    """Rows and columns of one side of a Kronecker product, multiplied out; None without one, zeros if it is broken."""
    whole = shapes.get(f"lokr_{side}")  # type: ignore[call-overload]
    if whole is not None:
        return whole[0], math.prod(whole[1:])
    a, b = shapes.get(f"lokr_{side}_a"), shapes.get(f"lokr_{side}_b")  # type: ignore[call-overload]
    if a is None or b is None or len(a) != 2 or a[1] != b[0]:
        return None if a is None else (0, 0)
    return a[0], math.prod(b[1:])


def _wrong_shape(
    path: Path, target: str, parts: Sequence[str], found: Sequence[Shape], expected: Shape | None
) -> ModelFilesError:
    shapes = " and ".join(str(list(shape)) for shape in found)
    fits = "nothing that it could be added to" if expected is None else f"[{', '.join(map(str, expected))}]"
    return ModelFilesError(
        f"{path}: the {' and '.join(parts)} of {target} {'has shape' if len(parts) == 1 else 'have shapes'} {shapes}, "
        f"which does not fit {fits}; a LoRA for a network of this size is expected"
    )


def _read_alphas(path: Path, stored: Mapping[str, StoredTensor]) -> dict[str, float]:
    """Read the alpha of each target; they are a few bytes each."""
    alphas = {}
    with open_regular(path) as (file, _):
        for target, tensor in stored.items():
            file.seek(tensor.first)
            alphas[target] = number_of(file.read(tensor.last - tensor.first), tensor.info.dtype)
    return alphas


def number_of(data: bytes, dtype: str) -> float:
    """Decode one number as safetensors stores it; NaN for a dtype that holds no numbers."""
    if dtype == "BF16":  # the upper half of a float32
        data, dtype = b"\0\0" + data, "F32"
    elif dtype == "F8_E5M2":  # the upper half of a float16
        data, dtype = b"\0" + data, "F16"
    elif dtype == "F8_E4M3":
        exponent, mantissa = data[0] >> 3 & 0xF, data[0] & 7
        value = math.ldexp(8 * (exponent > 0) + mantissa, max(exponent, 1) - 10)
        return math.nan if data[0] & 0x7F == 0x7F else -value if data[0] & 0x80 else value
    form = _STRUCT_FORMATS.get(dtype)
    return math.nan if form is None else float(struct.unpack(form, data)[0])


def _adapter_configuration(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """peft's configuration as diffusers writes it, without the prefixes of the names."""
    configuration = parse_json(metadata.get(_ADAPTER_METADATA, "{}"), f"{path}: its {_ADAPTER_METADATA}")
    if not isinstance(configuration, dict):
        raise ModelFilesError(f"{path}: its {_ADAPTER_METADATA} is not a mapping; fetch the LoRA again")
    return {name.removeprefix("transformer."): value for name, value in configuration.items()}


def _scale(path: Path, target: str, delta: StoredDelta, alpha: float | None, configuration: Mapping[str, Any]) -> float:
    """Alpha / rank; a file that does not give alpha means alpha = rank."""
    rank = _rank(delta)
    if rank is None:
        return 1.0
    found: Any = alpha
    if found is None:
        patterns = configuration.get("alpha_pattern") or {}
        if not isinstance(patterns, dict):
            raise ModelFilesError(f"{path}: the alpha_pattern of its {_ADAPTER_METADATA} is not a mapping of numbers")
        found = next((value for name, value in patterns.items() if target == name or target.endswith(f".{name}")), None)
        found = configuration.get("lora_alpha", rank) if found is None else found
        where = f"its {_ADAPTER_METADATA} gives {target} the alpha"
    else:
        where = f"{delta.names['alpha']} is"
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


def _rank(delta: StoredDelta) -> int | None:
    """The number that alpha is divided by; None without a product, or for whole factors of a LoKr."""
    if "down" in delta.shapes:
        return delta.shapes["down"][0]
    if "hada_w1_b" in delta.shapes:
        return delta.shapes["hada_w1_b"][0]
    for part in ("lokr_w2_b", "lokr_w1_b"):
        if part in delta.shapes:
            return delta.shapes[part][0]  # type: ignore[index]
    return None


def check_values(path: Path, cache: DigestCache) -> None:
    """Raise unless all numbers of a LoRA file are finite; an unchanged file is not read again.

    Args:
        path: a file that fits (:func:`check_fits`).
        cache: ``DigestCache.beside(layout, CHECKED_VALUES_CACHE)``.

    Raises:
        ModelFilesError: a tensor holds a value that is no finite number, or one that is absurdly large.
    """
    try:
        signature = Signature.of(path)
        if cache.known(path) == _CHECKED:
            return
        tensors, _ = read_tensors_and_metadata(path)
        with open_regular(path) as (file, _):
            for name, tensor in sorted(tensors.items(), key=lambda item: item[1].first):
                _check_numbers(path, name, tensor, file)
    except OSError as error:
        raise ModelFilesError(f"{path}: cannot be read ({error.strerror or error})") from error
    cache.record(path, signature, _CHECKED)
    cache.save()


def _check_numbers(path: Path, name: str, tensor: StoredTensor, file: BinaryIO) -> None:
    file.seek(tensor.first)
    left = tensor.last - tensor.first
    while left:
        block = file.read(min(left, _BLOCK_BYTES))
        if not block:
            raise ModelFilesError(f"{path}: ends within {printable(name)}; fetch the LoRA again")
        left -= len(block)
        largest = _largest(block, tensor.info.dtype)
        if not largest <= LARGEST_VALUE:  # also NaN
            what = (
                f"the value {largest:g}, and usual are below 10"
                if math.isfinite(largest)
                else "values that are not finite numbers (NaN or infinity)"
            )
            raise ModelFilesError(
                f"{path}: {printable(name)} holds {what}: its training or conversion failed; fetch the LoRA again, or "
                "name another one"
            )


def _largest(block: bytes, dtype: str) -> float:
    """The largest magnitude; NaN if one of the values is NaN, 0 for a dtype that is not floating point."""
    import numpy as np  # noqa: PLC0415

    values: np.ndarray
    if dtype in _NUMPY_DTYPES:
        values = np.frombuffer(block, _NUMPY_DTYPES[dtype])
    elif dtype == "BF16":  # the upper half of a float32
        values = (np.frombuffer(block, "<u2").astype("<u4") << 16).view("<f4")
    elif dtype in _FP8_DTYPES:
        used = np.flatnonzero(np.bincount(np.frombuffer(block, np.uint8), minlength=256))
        values = np.array([number_of(bytes([value]), dtype) for value in used])
    else:
        return 0.0
    # minimum and maximum hand on NaN; abs would need a copy
    return max(-float(values.min()), float(values.max()), key=lambda value: math.inf if math.isnan(value) else value)
