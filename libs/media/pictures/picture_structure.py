"""What is looked at in a picture's file before its pixels are decoded, so that reading it stays bounded.

A JPEG may hold thousands of scans, each of which costs as much as a whole picture, or claim more pixels than its bytes
can describe. A PNG may hold more text than Pillow is willing to read: such text is left out, since it shows nothing.
"""

import io
import mmap
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from libs.errors import MediaError

ORDINARY_SCANS = 32
"""Scans of a JPEG that any size may have; common encoders write 1 to 16."""

MAXIMUM_SCAN_PIXELS = 500_000_000
"""Pixels times scans of a JPEG with more scans than that; libjpeg decodes some 50 million of them a second."""

_LONGEST_TEXT = 1_000_000
"""Bytes of one text of a PNG that Pillow gets to see."""

_ALL_TEXTS = 8_000_000
_LARGEST_PROFILE = 16_000_000
_MOST_CHUNKS = 200_000
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT", b"eXIf"})
_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})

_HUFFMAN_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
_FRAMES = _HUFFMAN_FRAMES | {0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)}
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xD8)})


@dataclass
class _JpegStructure:
    width: int = 0
    height: int = 0
    blocks: int = 0
    scans: int = 0
    scan_bytes: int = 0
    huffman: bool = False


def check_jpeg(path: Path) -> None:
    """Refuse a JPEG that takes too long to decode, or claims more pixels than it holds.

    Raises:
        MediaError: too many scans for its size; fewer bits than blocks of 8 x 8 pixels.
        OSError: it cannot be read.
    """
    if path.stat().st_size == 0:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = _jpeg_structure(data)
    pixels = found.width * found.height
    if found.scans > ORDINARY_SCANS and found.scans * pixels > MAXIMUM_SCAN_PIXELS:
        raise MediaError(
            f"{path}: the picture is a progressive JPEG of {found.scans} scans, which takes too long to decode (at "
            f"{found.width} x {found.height} pixels at most {max(ORDINARY_SCANS, MAXIMUM_SCAN_PIXELS // pixels)} scans "
            "are accepted); save it as an ordinary JPEG or PNG"
        )
    if found.huffman and found.scans and found.scan_bytes * 8 < found.blocks:
        raise MediaError(
            f"{path}: the picture is truncated or damaged: it claims {found.width} x {found.height} pixels and holds "
            f"{found.scan_bytes} bytes of them; copy it again"
        )


def _jpeg_structure(data: mmap.mmap) -> _JpegStructure:
    """The first image of a JPEG file, as far as it can be followed."""
    found, position = _JpegStructure(), 2
    while (position := data.find(b"\xff", position)) >= 0 and position + 1 < len(data):
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        position += 2
        if marker == _END_OF_IMAGE:
            break
        if marker in _WITHOUT_LENGTH or marker == _START_OF_IMAGE:
            continue
        if position + 2 > len(data):
            break
        length = struct.unpack_from(">H", data, position)[0]
        if marker in _FRAMES and not found.blocks:
            _read_frame_header(data[position : position + length], found)
            found.huffman = marker in _HUFFMAN_FRAMES
        position += max(2, length)
        if marker == _START_OF_SCAN:
            found.scans += 1
            end = _end_of_scan(data, position)
            found.scan_bytes += end - position
            position = end
    return found


def _end_of_scan(data: mmap.mmap, position: int) -> int:
    """The end of the entropy-coded bytes from ``position`` on: the first marker that is neither a restart nor a stuffed
    byte."""
    while (position := data.find(b"\xff", position)) >= 0 and position + 1 < len(data):
        if data[position + 1] not in _WITHOUT_LENGTH and data[position + 1] != 0xFF:
            return position
        position += 1 if data[position + 1] == 0xFF else 2
    return len(data)


def _read_frame_header(segment: bytes, found: _JpegStructure) -> None:
    """Size, and how many blocks of coefficients all components have together."""
    if len(segment) < 8:
        return
    found.height, found.width, components = struct.unpack_from(">HHB", segment, 3)
    factors = [divmod(segment[9 + 3 * index], 16) for index in range(components) if 9 + 3 * index < len(segment)]
    if not factors or not all(h and v for h, v in factors):
        return
    widest, tallest = max(h for h, _ in factors), max(v for _, v in factors)
    found.blocks = sum(-(-found.width * h // (8 * widest)) * -(-found.height * v // (8 * tallest)) for h, v in factors)


@dataclass(frozen=True)
class PngContent:
    """``file``: the PNG without what would not be read; ``profile``: its colour profile, where that was left out."""

    file: IO[bytes]
    profile: bytes | None


def open_png(path: Path) -> PngContent | None:
    """A PNG without texts and other additions that are too large; None where nothing has to be left out.

    Raises:
        MediaError: more chunks than any program writes.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(_PNG_START)) != _PNG_START:
            return None
        kept, profile, left_out = [(0, len(_PNG_START))], None, False
        texts = 0
        for kind, start, length in _chunks(file, path):
            keep = True
            if kind == b"iCCP":
                content = _inflated_profile(file, start, length)
                keep = content is not None and len(content) < _LONGEST_TEXT
                profile = None if keep else content
            elif kind in _TEXTS:
                size = _text_size(file, kind, start, length)
                keep = size < _LONGEST_TEXT and texts + size < _ALL_TEXTS
                texts += size if keep else 0
            elif kind not in _PIXEL_CHUNKS:
                keep = length < _LONGEST_TEXT
            left_out |= not keep
            if keep and kept[-1][1] == start:
                kept[-1] = (kept[-1][0], start + length + 12)
            elif keep:
                kept.append((start, start + length + 12))
    return PngContent(io.BufferedReader(_Pieces(path, kept)), profile) if left_out else None


def _chunks(file: IO[bytes], path: Path) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and length of content, up to the end of the picture; ``file`` may be moved in between."""
    size = path.stat().st_size
    position = len(_PNG_START)
    for _ in range(_MOST_CHUNKS):
        file.seek(position)
        header = file.read(8)
        if len(header) < 8:
            return
        length, kind = struct.unpack(">I4s", header)
        length = min(length, max(0, size - position - 12))
        yield kind, position, length
        position += length + 12
        if kind == b"IEND":
            return
    raise MediaError(f"{path}: the picture is damaged: it consists of more than {_MOST_CHUNKS:,} pieces")


def _inflated_profile(file: IO[bytes], start: int, length: int) -> bytes | None:
    """The colour profile, empty where it is damaged; None where it is too large to be one."""
    if length > _LARGEST_PROFILE:
        return None
    file.seek(start + 8)
    _, _, rest = file.read(length).partition(b"\0")
    inflating = zlib.decompressobj()
    try:
        content = inflating.decompress(rest[1:], _LARGEST_PROFILE)
    except zlib.error:
        return b""
    return None if inflating.unconsumed_tail else content


def _text_size(file: IO[bytes], kind: bytes, start: int, length: int) -> int:
    """Bytes of a text when it is inflated, ``_LONGEST_TEXT`` where it is that long or longer."""
    if length >= _LONGEST_TEXT:
        return _LONGEST_TEXT
    if kind == b"tEXt":
        return length
    file.seek(start + 8)
    _, _, rest = file.read(length).partition(b"\0")
    if kind == b"zTXt":
        compressed = rest[1:]
    elif rest[:1] == b"\1":
        compressed = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    else:
        return length
    try:
        return len(zlib.decompressobj().decompress(compressed, _LONGEST_TEXT))
    except zlib.error:
        return length


class _Pieces(io.RawIOBase):
    """Some stretches of a file as if there were nothing between them."""

    def __init__(self, path: Path, pieces: list[tuple[int, int]]) -> None:
        super().__init__()
        self._file = path.open("rb")
        self._pieces: list[tuple[int, int, int]] = []
        self._size = self._position = 0
        for start, stop in pieces:
            self._pieces.append((self._size, start, stop - start))
            self._size += stop - start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence])
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        for begin, start, length in self._pieces:
            if begin <= self._position < begin + length:
                within = self._position - begin
                self._file.seek(start + within)
                content = self._file.read(min(len(buffer), length - within))
                buffer[: len(content)] = content
                self._position += len(content)
                return len(content)
        return 0

    def close(self) -> None:
        self._file.close()
        super().close()
