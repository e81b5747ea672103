"""JSON from untrusted files: any content is read in bounded time and memory, or refused with a reason."""

import json
from pathlib import Path
from typing import Any

from libs.errors import ModelFilesError
from libs.files.garbage_collection import garbage_collection_paused
from libs.files.regular_file import open_regular

_MAX_BYTES = 16 * 1024 * 1024
"""What repositories hold as JSON takes a few hundred kilobytes; parsed, it takes some thirty times its size."""


def read_json_file(path: Path, kind: str, what: str | None = None) -> Any:
    """The content of the JSON file ``path``.

    Args:
        path: of the file.
        kind: what it should be, for errors: "safetensors index".
        what: how errors call it; its path where it is left out.

    Raises:
        FileNotFoundError: there is no such file.
        ModelFilesError: it is no file, too large, or no JSON.
    """
    with open_regular(path) as (file, size):
        if size > _MAX_BYTES:
            raise ModelFilesError(f"{what or path}: is not a {kind}: it has {size:,} bytes")
        text = file.read(_MAX_BYTES)
    return parse_json(text, f"{what or path}: the {kind}")


def parse_json(text: bytes | str, what: str) -> Any:
    """``text`` as JSON, whatever it is.

    Raises:
        ModelFilesError: not JSON; the message begins with ``what`` and gives the reason.
    """
    try:
        with garbage_collection_paused():
            return json.loads(text)
    except RecursionError:
        raise ModelFilesError(f"{what} is nested too deeply to be one") from None
    except ValueError as error:  # also of bytes that are no text, and of numbers of thousands of digits
        raise ModelFilesError(f"{what} is not JSON: {error}") from None
