"""Tells a still picture from a video by the first bytes of the file: a still is a driver of one frame.

See ``image`` for reading pictures. Animated pictures are videos.
"""

from pathlib import Path

_SIGNATURES = (b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")
_PNG = b"\x89PNG\r\n\x1a\n"
_BRANDS = frozenset({b"heic", b"heix", b"mif1", b"avif"})
_HEADER_BYTES = 65_536


def is_still(path: Path) -> bool:
    """True for a PNG, JPEG, WebP, BMP, TIFF, HEIC or AVIF picture that does not move."""
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    if head.startswith(_PNG):
        return b"acTL" not in head.partition(b"IDAT")[0]
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return not (head[12:16] == b"VP8X" and len(head) > 20 and head[20] & 2)
    if head[4:8] == b"ftyp":
        return head[8:12] in _BRANDS
    return head.startswith(_SIGNATURES)
