"""Named arrays in one ``.npz``: no pickles, written atomically, byte for byte reproducible."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from libs.errors import PoseError
from libs.files.atomic_write import atomic_write

_FORMAT_KEY = "format"
# What numpy lets through when bytes of an archive are wrong.
_DAMAGED = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError, NotImplementedError)


def write_arrays(path: Path, file_format: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write ``arrays`` and the name of their format, under a temporary name first.

    numpy stamps every member with the same date, so equal arrays give equal files.
    """
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **{_FORMAT_KEY: np.array(file_format)}, **arrays)  # type: ignore[arg-type]


def read_arrays(path: Path, file_format: str) -> dict[str, np.ndarray]:
    """All arrays that :func:`write_arrays` stored, without their format's name.

    Raises:
        PoseError: the file is missing, damaged, or of another format.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise PoseError(f"{path}: does not exist") from None
    except _DAMAGED as error:
        raise PoseError(f"{path}: cannot be read as arrays ({error}); make it again") from None
    found = str(arrays.pop(_FORMAT_KEY, np.array("nothing")))
    if found != file_format:
        raise PoseError(f"{path}: expected the format {file_format}, found {found}; make it again")
    return arrays
