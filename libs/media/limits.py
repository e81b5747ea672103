"""The sizes, lengths and rates that a picture or a video may have.

Beyond these something is wrong with the file (or with the wish), and the memory it would take hurts everybody on the
machine. See ``libs.model_repo.variants`` for the limits of a model.
"""

from collections.abc import Mapping
from fractions import Fraction

from libs.errors import MediaError

MINIMUM_SIDE = 16
"""Pixels. The model works on multiples of 16: a shorter side has no size (docs/specification.md#frames-and-sizes)."""

MAXIMUM_SIDE = 16_384
"""Pixels; the largest side H.264 level 6.2 and WebP can hold, and beyond any camera's video."""

MAXIMUM_PICTURE_PIXELS = 80_000_000
"""Pixels of a still picture: 240 MB as RGB. Larger than any phone's camera saves by default."""

MAXIMUM_PICTURE_BYTES = 1_000_000_000
"""Memory that reading one picture takes at its peak: up to 12 bytes a pixel (progressive JPEG), most formats 9."""

_PIXELS_OF_COSTLY_FORMATS: Mapping[str, int] = {
    "WEBP": 50_000_000,
    "HEIF": 64_000_000,
    "AVIF": 34_000_000,
}
"""Decoders that take more bytes a pixel keep to ``MAXIMUM_PICTURE_BYTES`` by this: WebP 19, HEIC of ten bits 15, AVIF
17 with transparency and without subsampling (measured), 29 of twelve bits and with film grain (calculated)."""

MAXIMUM_FRAME_PIXELS = 8192 * 4352
"""Pixels of one video frame: 8K, 107 MB as RGB."""

MAXIMUM_FRAME_COUNT = 216_000
"""Frames of one video: an hour at 60 frames per second."""

MAXIMUM_FRAME_RATE = Fraction(240)
"""Frames per second: slow-motion recordings of phones reach it; more comes from broken time stamps."""

MINIMUM_FRAME_RATE = Fraction(1, 10)
"""Frames per second: slower than any slide show; less comes from broken time stamps."""

MAXIMUM_DURATION = Fraction(12 * 3600)
"""Seconds of one video; more comes from broken time stamps, or is no driver."""


def maximum_pixels_of(picture_format: str) -> int:
    """Pixels of a still picture in a format of Pillow's name."""
    return _PIXELS_OF_COSTLY_FORMATS.get(picture_format, MAXIMUM_PICTURE_PIXELS)


def check_size(what: str, width: int, height: int, maximum_pixels: int) -> None:
    """Refuse sizes that cannot be used.

    Raises:
        MediaError: a side is shorter than 16 pixels or longer than ``MAXIMUM_SIDE``, or there are too many pixels.
    """
    size = f"{what} is {width} x {height} pixels"
    if min(width, height) < MINIMUM_SIDE:
        raise MediaError(f"{size}: both sides must be at least {MINIMUM_SIDE} pixels")
    if max(width, height) > MAXIMUM_SIDE or width * height > maximum_pixels:
        raise MediaError(
            f"{size}: at most {MAXIMUM_SIDE} pixels a side and {maximum_pixels / 1e6:.0f} megapixels are accepted; "
            "scale it down first"
        )
