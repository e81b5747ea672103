"""Small pictures as ``data:`` addresses, for Markdown in Dagster's metadata.

Addresses of stored objects expire or need a login; metadata stays.
"""

import base64
import io
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageSequence

from libs.errors import MediaError
from libs.media.previews.preview import animated_webp
from libs.media.previews.tiles import scaled_to_fit

Frame = npt.NDArray[np.uint8]

_STEPS = ((640, 80), (480, 75), (384, 70), (320, 60), (256, 50), (192, 45), (128, 40), (96, 30), (64, 20), (32, 10))


def thumbnail_data_uri(frame: Frame, limit: int) -> str:
    """``frame`` (uint8 RGB [H, W, 3]) as a JPEG ``data:`` address of at most ``limit`` characters.

    Scaled down and compressed until it fits.

    Raises:
        MediaError: not even 32 pixels fit (limits below about 1 KB).
    """
    for side, quality in _STEPS:
        encoded = io.BytesIO()
        Image.fromarray(scaled_to_fit(frame, side)).save(encoded, "JPEG", quality=quality, optimize=True)
        uri = _data_uri("image/jpeg", encoded.getvalue())
        if len(uri) <= limit:
            return uri
    raise MediaError(f"no thumbnail fits into {limit} characters")


def animation_data_uri(frames: Iterable[Frame], frame_rate: Fraction, limit: int) -> str:
    """``frames`` as an animated WebP ``data:`` address of at most ``limit`` characters.

    Raises:
        InputError, MediaError: as :func:`libs.media.previews.preview.animated_webp`.
    """
    overhead = len(_data_uri("image/webp", b"")) + 4
    return _data_uri("image/webp", animated_webp(frames, frame_rate, max(0, limit - overhead) * 3 // 4))


def picture_data_uri(path: Path, limit: int) -> str:
    """A picture file, still or animated, as a ``data:`` address of at most ``limit`` characters.

    As it is where it fits; made smaller otherwise.

    Raises:
        MediaError: it is no picture, or cannot be made small enough.
    """
    try:
        with Image.open(path) as picture:
            whole = _data_uri(Image.MIME[picture.format or ""], path.read_bytes())
            if len(whole) <= limit:
                return whole
            if not getattr(picture, "is_animated", False):
                return thumbnail_data_uri(np.asarray(picture.convert("RGB")), limit)
            frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)]
            milliseconds = int(picture.info.get("duration") or 100)
    except (OSError, KeyError) as error:
        raise MediaError(f"{path}: is no picture that a page can show ({error})") from None
    return animation_data_uri(frames, Fraction(1000, milliseconds), limit)


def _data_uri(content_type: str, data: bytes) -> str:
    return f"data:{content_type};base64,{base64.b64encode(data).decode('ascii')}"
