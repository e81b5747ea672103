"""How large the pictures inside an AVIF file are, by the headers of their AV1 data, before anything is decoded.

The size that the container claims is what Pillow reports, and what its limit is compared with; the decoder takes memory
by the size in the data. References: ISO/IEC 14496-12 (boxes), ISO/IEC 23008-12 (items), the AV1 bitstream
format, 5.3 (OBU header) and 5.5 (sequence header).
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from libs.errors import MediaError

_MOST_STEPS = 100_000
"""Boxes, items, extents and units that are followed; no program writes more."""

_SEQUENCE_HEADER = 1
_CONTAINERS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl"})


def check_avif(path: Path, maximum_pixels: int) -> None:
    """Refuse an AVIF whose data describe more pixels than a picture may have, whatever its container claims.

    Raises:
        MediaError: one of its pictures (or tiles, its transparency, its gain map) has more than ``maximum_pixels``.
        OSError: it cannot be read.
    """
    if path.stat().st_size == 0:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for width, height in _Reader(data).picture_sizes():
            if width * height > maximum_pixels:
                raise MediaError(
                    f"{path}: the picture's data describe {width} x {height} pixels: at most "
                    f"{maximum_pixels / 1e6:.0f} megapixels are accepted in an AVIF; scale it down first"
                )


class _Reader:
    """Follows the boxes of a file as far as they can be followed; what is damaged is left to the decoder."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._steps = 0

    def picture_sizes(self) -> Iterator[tuple[int, int]]:
        """Largest width and height of each coded picture, or run of pictures, of the file."""
        for start, end in self._coded(0, len(self._data)):
            yield from self._sizes_in(start, end)

    def _sizes_in(self, position: int, end: int) -> Iterator[tuple[int, int]]:
        """The picture sizes in the sequence headers among the units from ``position`` on."""
        while position < end and self._step():
            header = self._data[position]
            kind, has_extension, has_size = header >> 3 & 15, header >> 2 & 1, header >> 1 & 1
            position += 1 + has_extension
            length = end - position
            if has_size:
                length, position = self._leb128(position, end)
            if kind == _SEQUENCE_HEADER and length > 0:
                yield _size_of_sequence(self._data[position : min(position + min(length, 1024), end)])
            position += length

    def _leb128(self, position: int, end: int) -> tuple[int, int]:
        value = 0
        for number in range(8):
            if position >= end:
                break
            byte = self._data[position]
            position += 1
            value |= (byte & 0x7F) << (7 * number)
            if not byte & 0x80:
                break
        return value, position

    def _coded(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Stretches of the file that hold AV1 data: of items, and where the chunks of a track begin."""
        for kind, first, last in self._boxes(start, end):
            if kind == b"meta":
                yield from self._items(first + 4, last)
            elif kind in _CONTAINERS:
                yield from self._coded(first, last)
            elif kind in {b"stco", b"co64"}:
                width = 4 if kind == b"stco" else 8
                for number in range(self._number(first + 4, 4)):
                    place = first + 8 + number * width
                    if place + width > last or not self._step():
                        return
                    yield self._number(place, width), len(self._data)

    def _boxes(self, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """Kind, and where the content begins and ends."""
        while position + 8 <= end and self._step():
            size, kind, header = self._number(position, 4), bytes(self._data[position + 4 : position + 8]), 8
            if size == 1:
                size, header = self._number(position + 8, 8), 16
            elif size == 0:
                size = end - position
            if size < header:
                return
            yield kind, position + header, min(position + size, end)
            position += size

    def _items(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        boxes = {kind: (first, last) for kind, first, last in self._boxes(start, end)}
        if b"iloc" not in boxes:
            return
        idat = boxes.get(b"idat", (0, 0))[0]
        position, last = boxes[b"iloc"]
        version = self._number(position, 1)
        sizes = self._number(position + 4, 2)
        offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
        wide = 4 if version == 2 else 2
        count, position = self._number(position + 6, wide), position + 6 + wide
        for _ in range(count):
            position += wide
            method = 0
            if version:
                method, position = self._number(position, 2) & 15, position + 2
            base = self._number(position + 2, base_size)
            extents, position = self._number(position + 2 + base_size, 2), position + 4 + base_size
            for _ in range(extents):
                if position > last or not self._step():
                    return
                position += index_size if version else 0
                offset = base + self._number(position, offset_size) + (idat if method == 1 else 0)
                length = self._number(position + offset_size, length_size)
                position += offset_size + length_size
                stop = offset + length if length else len(self._data)
                yield offset, min(stop, len(self._data))

    def _number(self, position: int, width: int) -> int:
        return int.from_bytes(self._data[position : position + width], "big")

    def _step(self) -> bool:
        self._steps += 1
        return self._steps < _MOST_STEPS


class _Bits:
    """Reads numbers of some bits; zeros behind the end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, count: int) -> int:
        self._left -= count
        shifted = self._value >> self._left if self._left >= 0 else self._value << -self._left
        return shifted & ((1 << count) - 1)

    def skip_uvlc(self) -> None:
        zeros = 0
        while zeros < 32 and not self.read(1):
            zeros += 1
        if zeros < 32:
            self.read(zeros)


def _size_of_sequence(data: bytes) -> tuple[int, int]:
    """Largest width and height that the frames after a sequence header may have."""
    bits = _Bits(data)
    bits.read(3)  # profile
    bits.read(1)  # still picture
    if bits.read(1):  # reduced header
        bits.read(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    return bits.read(width_bits) + 1, bits.read(height_bits) + 1


def _skip_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    if bits.read(1):  # timing information
        bits.read(64)
        if bits.read(1):
            bits.skip_uvlc()
        if bits.read(1):  # model of the decoder
            delay_bits = bits.read(5) + 1
            bits.read(42)
    has_display_delay = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if delay_bits and bits.read(1):
            bits.read(2 * delay_bits + 1)
        if has_display_delay and bits.read(1):
            bits.read(4)
