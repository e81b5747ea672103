"""Still pictures: files <-> uint8 RGB arrays.

What does not belong here: scaling and cropping (``libs.pose.framing``), captions and sheets (``tiles``).
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from libs.atomic_write import atomic_write
from libs.errors import MediaError
from libs.media.colour_profile import to_srgb
from libs.media.limits import MAXIMUM_PICTURE_PIXELS, check_size

Frame = npt.NDArray[np.uint8]

READABLE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
"""Pillow's names. Formats that start other programs (EPS) or fetch other files are left out on purpose."""

_UNUSABLE_MODES = {"F": "floating-point numbers", "LAB": "CIELAB colours"}
_SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I"})


def read_image(path: Path | str, as_people_see_it: bool = True) -> Frame:
    """A picture as uint8 RGB [H, W, 3]; of an animation its first frame.

    Transparency is dropped without compositing, as the reference implementation does
    (docs/specification.md#pose-flow). Unlike there, the EXIF orientation is applied and colours are brought from the
    file's profile to sRGB, because people expect a phone's picture upright and not pale; pass
    ``as_people_see_it=False`` for the reference behaviour. 16-bit grey is reduced to 8 bits.

    Raises:
        MediaError: missing, not a picture of a known format, truncated or damaged, a side below 16 pixels, or more
            than 80 megapixels (checked before the pixels are decoded).
    """
    path = Path(path)
    try:
        with Image.open(path, formats=READABLE_FORMATS) as image:
            check_size(f"{path}: the picture", *image.size, MAXIMUM_PICTURE_PIXELS)
            if image.mode in _UNUSABLE_MODES:
                raise MediaError(
                    f"{path}: the picture holds {_UNUSABLE_MODES[image.mode]}; save it as an ordinary 8-bit RGB picture"
                )
            image.load()
            return _to_rgb(to_srgb(ImageOps.exif_transpose(image), path) if as_people_see_it else image)
    except FileNotFoundError as error:
        raise MediaError(f"{path}: no such file") from error
    except Image.DecompressionBombError as error:
        raise MediaError(
            f"{path}: the picture has more than {MAXIMUM_PICTURE_PIXELS / 1e6:.0f} megapixels; scale it down first"
        ) from error
    except UnidentifiedImageError as error:
        raise MediaError(
            f"{path}: not a picture, or of an unknown format; expected one of {', '.join(READABLE_FORMATS)}"
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, RuntimeError) as error:  # the last from the AVIF decoder
        raise MediaError(f"{path}: the picture is truncated or damaged ({error}); copy it again") from error


def _to_rgb(image: Image.Image) -> Frame:
    if image.mode in _SIXTEEN_BIT_MODES:
        # Pillow's own conversion clips at 255 instead of scaling.
        grey = (np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(image.convert("RGB"), dtype=np.uint8)


def write_png(path: Path | str, frame: Frame) -> None:
    """Write uint8 RGB [H, W, 3] or grey [H, W] without loss, atomically."""
    with atomic_write(Path(path)) as temporary:
        Image.fromarray(np.ascontiguousarray(frame)).save(temporary, format="PNG")
