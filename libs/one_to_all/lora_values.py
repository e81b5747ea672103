"""Whether the numbers in a LoRA file can be computed with: one pass over the file, in bounded memory. Light: no torch.

One NaN makes a whole clip black, and would be found only after the poses. What does not belong here: what a file holds,
by its header (``lora_contents``), the tensors themselves (``lora_changes``).
"""

import math
from pathlib import Path
from typing import BinaryIO

from libs.errors import ModelFilesError
from libs.model_repo.digests import DigestCache, Signature
from libs.model_repo.regular_file import open_regular
from libs.model_repo.safetensors_header import StoredTensor, read_tensors_and_metadata
from libs.one_to_all.lora_contents import number_of
from libs.printable import printable

CHECKED_VALUES_CACHE = ".lora_values.json"
"""Beside the repositories: which files were read through, by their signatures."""

LARGEST_VALUE = 1e8
"""Usual are below 10. Four factors of this size still give a finite product in float32."""

_CHECKED = f"at most {LARGEST_VALUE:g}"
_BLOCK_BYTES = 4 << 20
_PLAIN = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_OF_ONE_BYTE = frozenset({"F8_E4M3", "F8_E5M2"})


def check_values(path: Path, cache: DigestCache) -> None:
    """Do nothing for a LoRA file whose numbers are all finite; not read again while the file is unchanged.

    Args:
        path: a file whose header was checked (``lora_contents``).
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
                _check_tensor(path, name, tensor, file)
    except OSError as error:
        raise ModelFilesError(f"{path}: cannot be read ({error.strerror or error})") from error
    cache.record(path, signature, _CHECKED)
    cache.save()


def _check_tensor(path: Path, name: str, tensor: StoredTensor, file: BinaryIO) -> None:
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
    """The largest magnitude; NaN if one of the values is. 0 for a dtype that is no floating point."""
    import numpy as np  # noqa: PLC0415

    values: np.ndarray
    if dtype in _PLAIN:
        values = np.frombuffer(block, _PLAIN[dtype])
    elif dtype == "BF16":  # the upper half of a float32
        values = (np.frombuffer(block, "<u2").astype("<u4") << 16).view("<f4")
    elif dtype in _OF_ONE_BYTE:
        used = np.flatnonzero(np.bincount(np.frombuffer(block, np.uint8), minlength=256))
        values = np.array([number_of(bytes([value]), dtype) for value in used])
    else:
        return 0.0
    # minimum and maximum hand on NaN; abs would need a copy
    return max(-float(values.min()), float(values.max()), key=lambda value: math.inf if math.isnan(value) else value)
