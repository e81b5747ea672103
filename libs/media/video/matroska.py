"""The one thing read from Matroska and WebM files directly: how long the file says it is.

FFmpeg reads a cut-off Matroska file to its end without a word. Source of the layout: RFC 8794 (EBML), sections 4 and
11; RFC 9559 (Matroska), section 5.1.
"""

from pathlib import Path

_EBML_HEADER_ID = bytes.fromhex("1A45DFA3")
_SEGMENT_ID = bytes.fromhex("18538067")


def declared_file_size(path: Path) -> int | None:
    """Bytes up to the end of the first segment; None for other files and for live recordings of unknown length."""
    with path.open("rb") as file:
        if file.read(4) != _EBML_HEADER_ID:
            return None
        header_size = _read_size(file.read(8))
        if header_size is None:
            return None
        size, length = header_size
        start = 4 + length + size
        file.seek(start)
        if file.read(4) != _SEGMENT_ID:
            return None
        segment_size = _read_size(file.read(8))
    if segment_size is None:
        return None
    size, length = segment_size
    return start + 4 + length + size


def _read_size(data: bytes) -> tuple[int, int] | None:
    """Value and length of the variable-length integer at the start of ``data``; None if unknown (all ones) or cut."""
    if not data or data[0] == 0:
        return None
    length = 9 - data[0].bit_length()
    if len(data) < length:
        return None
    value = int.from_bytes(data[:length], "big") & ((1 << 7 * length) - 1)
    return None if value == (1 << 7 * length) - 1 else (value, length)
