"""Still pictures: files <-> uint8 RGB arrays.

Scaling and cropping: ``libs.pose.fitting.framing``; captions and sheets: ``tiles``; what is refused before pixels are
decoded: ``picture_structure``.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from libs.errors import MediaError
from libs.files.atomic_write import atomic_write
from libs.media.file_kind import kind_of_file
from libs.media.limits import MAXIMUM_PICTURE_PIXELS, check_size, maximum_pixels_of
from libs.media.pictures.avif_structure import check_avif
from libs.media.pictures.colour_profile import Conversion, DamagedProfileError, to_srgb
from libs.media.pictures.picture_structure import check_jpeg, open_png

Frame = npt.NDArray[np.uint8]

READABLE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "HEIF")
"""Pillow's names. Formats that start other programs (EPS) or fetch other files are left out on purpose."""

BACKGROUND = 128
"""Grey level that shows where a picture is transparent: neutral, so that its edges get no fringe of another colour."""

_SHOWN_FORMATS = ", ".join(name.replace("HEIF", "HEIC") for name in READABLE_FORMATS)
_UNUSABLE_MODES = {"F": "floating-point numbers", "LAB": "CIELAB colours"}
_SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I"})
_EXIF_ORIENTATION = 0x0112
_ROWS_AT_ONCE = 256

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as people see it.

    Attributes:
        frame: uint8 RGB [H, W, 3].
        transparent: some of it showed the background.
        several: the file holds more than this one picture (an animation, pages, a gain map).
        damaged_profile: the file's colour profile cannot be used, so its colours are taken for sRGB.
    """

    frame: Frame
    transparent: bool
    several: bool
    damaged_profile: bool = False

    def notes(self) -> tuple[str, ...]:
        """What a person may want to know of how the file was read."""
        transparent = ["transparent parts are shown over neutral grey"] if self.transparent else []
        several = ["the file holds several pictures; the first (or the one it names as its main one) is used"]
        profile = ["its colour profile is damaged and left aside: colours are taken for sRGB"]
        return (*transparent, *(several if self.several else []), *(profile if self.damaged_profile else []))


def read_image(path: Path | str, as_people_see_it: bool = True) -> Frame:
    """A picture as uint8 RGB [H, W, 3]; of an animation its first frame, of a HEIC its main picture.

    Unlike in the reference implementation (docs/specification.md#pose-flow) the EXIF orientation is applied,
    colours are brought from the file's profile to sRGB, and what is transparent is laid over neutral grey, because
    people expect a phone's picture upright and not pale, and a cut-out without the colours hidden around it; pass
    ``as_people_see_it=False`` for the reference behaviour. 16-bit grey is reduced to 8 bits.

    Raises:
        MediaError: missing, not a picture of a known format, truncated or damaged, a side below 16 pixels, more than
            80 megapixels (fewer for formats whose decoders need more memory; checked before the pixels are decoded), or
            a JPEG of too many scans.
    """
    return read_picture(path, as_people_see_it).frame


def read_picture(path: Path | str, as_people_see_it: bool = True) -> Picture:
    """Read a picture like :func:`read_image`, and what was noticed while reading."""
    path = Path(path)
    with _explained(path), _opened(path) as image:
        several = bool(getattr(image, "is_animated", False))
        image.load()
        orientation = _orientation(image, path) if as_people_see_it else 1
        convert, damaged_profile = _conversion(image, path) if as_people_see_it else (None, False)
        frame, transparent = _to_rgb(image, convert, over_grey=as_people_see_it)
        image.close()  # frees its pixels, a third more than those of the frame, before they are turned
    return Picture(_turned(frame, orientation), transparent, several, damaged_profile)


@lru_cache(maxsize=1)
def _register_heic() -> None:
    """Let Pillow open HEIC; only the main picture, no thumbnails, depth or gain maps."""
    import pillow_heif  # noqa: PLC0415 - loads libheif

    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture, its header read and its size found acceptable; pixels are decoded by ``load``."""
    _register_heic()
    png = open_png(path)
    try:
        with Image.open(png.file if png else path, formats=READABLE_FORMATS) as image:
            limit = maximum_pixels_of(str(image.format))
            check_size(f"{path}: the picture", *image.size, limit)
            if image.mode in _UNUSABLE_MODES:
                raise MediaError(
                    f"{path}: the picture holds {_UNUSABLE_MODES[image.mode]}; save it as an ordinary 8-bit RGB picture"
                )
            if image.format in {"JPEG", "MPO"}:
                check_jpeg(path)
            if image.format == "AVIF":
                check_avif(path, limit)
            if png and png.profile:
                image.info["icc_profile"] = png.profile
            yield image
    finally:
        if png:
            png.file.close()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Whatever a decoder raises becomes a ``MediaError`` that says what is wrong with ``path``."""
    try:
        yield
    except MediaError:
        raise
    except FileNotFoundError as error:
        raise MediaError(f"{path}: no such file") from error
    except Image.DecompressionBombError as error:
        raise MediaError(
            f"{path}: the picture has more than {MAXIMUM_PICTURE_PIXELS / 1e6:.0f} megapixels; scale it down first"
        ) from error
    except UnidentifiedImageError as error:
        kind = kind_of_file(path)
        if kind and kind.startswith("a picture"):
            raise MediaError(
                f"{path}: {kind} that is truncated, damaged or of a kind that cannot be read, so not a picture to work "
                "with; copy it again, or save it as PNG or JPEG"
            ) from error
        seems = f"it is {kind}" if kind else "or of an unknown format"
        swapped = "; are reference and driver exchanged?" if kind and kind.startswith("a video") else ""
        raise MediaError(
            f"{path}: not a picture: {seems}{swapped}; expected one of {_SHOWN_FORMATS}"
            if kind
            else f"{path}: not a picture, {seems}; expected one of {_SHOWN_FORMATS}"
        ) from error
    except Exception as error:
        # Decoders of a dozen formats raise whatever a damaged file makes them stumble over.
        _log.info("%s: cannot be decoded", path.name, exc_info=True)
        words = str(error) if isinstance(error, OSError | SyntaxError | ValueError | RuntimeError) else "its data"
        raise MediaError(f"{path}: the picture is truncated or damaged ({words}); copy it again") from error


def _conversion(image: Image.Image, path: Path) -> tuple[Conversion | None, bool]:
    """What brings the picture to sRGB, and whether its profile is damaged."""
    try:
        return to_srgb(image), False
    except DamagedProfileError as error:
        _log.info("%s: its colour profile is damaged and left aside: %s", path.name, error)
        return None, True


def _orientation(image: Image.Image, path: Path) -> int:
    """The EXIF orientation, 1 (as stored) to 8; 1 if the metadata cannot be read."""
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception as error:
        _log.warning("%s: its EXIF data are damaged and left aside: %s", path.name, error)
        return 1


def _turned(frame: Frame, orientation: int) -> Frame:
    """The upright picture, contiguous, for a stored one and its EXIF orientation."""
    match orientation:
        case 2:
            frame = frame[:, ::-1]
        case 3:
            frame = frame[::-1, ::-1]
        case 4:
            frame = frame[::-1]
        case 5:
            frame = frame.transpose(1, 0, 2)
        case 6:
            frame = np.rot90(frame, -1)
        case 7:
            frame = frame[::-1, ::-1].transpose(1, 0, 2)
        case 8:
            frame = np.rot90(frame, 1)
    return np.ascontiguousarray(frame)


def _to_rgb(image: Image.Image, convert: Conversion | None, *, over_grey: bool) -> tuple[Frame, bool]:
    """The pixels as RGB, some rows at a time to save memory, and whether any was transparent."""
    width, height = image.size
    frame, transparent = np.empty((height, width, 3), np.uint8), False
    _scale_transparent_colour(image)
    for top in range(0, height, _ROWS_AT_ONCE):
        bottom = min(top + _ROWS_AT_ONCE, height)
        part = image.crop((0, top, width, bottom))
        rows = _rgb(part, convert)
        alpha = _alpha(part) if over_grey else None
        if alpha is not None and alpha.min() < 255:
            transparent = True
            weight = alpha.astype(np.uint32)[..., None]
            rows = ((rows * weight + BACKGROUND * (255 - weight) + 127) // 255).astype(np.uint8)
        frame[top:bottom] = rows
    return frame, transparent


def _rgb(part: Image.Image, convert: Conversion | None) -> Frame:
    if part.mode in _SIXTEEN_BIT_MODES:
        # Pillow's own conversion clips at 255 instead of scaling.
        grey = (np.asarray(part).clip(0, 65535) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if convert is not None:
        return np.asarray(convert(part), dtype=np.uint8)
    if part.mode in {"RGBa", "La"}:  # colours that were multiplied with their alpha
        part = part.convert("RGBA" if part.mode == "RGBa" else "LA")
    return np.asarray(part.convert("RGB"), dtype=np.uint8)


def _alpha(part: Image.Image) -> Frame | None:
    """How opaque each pixel is; None where the picture knows no transparency."""
    if not part.has_transparency_data:
        return None
    if part.mode in _SIXTEEN_BIT_MODES:
        return np.where(np.asarray(part) == part.info["transparency"], 0, 255).astype(np.uint8)
    if part.mode == "La":
        part = part.convert("LA")
    return np.asarray(part.convert("RGBA").getchannel("A"), dtype=np.uint8)


def _scale_transparent_colour(image: Image.Image) -> None:
    """A 16-bit RGB picture is read as 8-bit; the colour that it names as transparent is not."""
    colour = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(colour, tuple) and max(colour) > 255:
        image.info["transparency"] = tuple(level >> 8 for level in colour)


def write_png(path: Path | str, frame: Frame) -> None:
    """Write uint8 RGB [H, W, 3] or grey [H, W] without loss, atomically."""
    with atomic_write(Path(path)) as temporary:
        Image.fromarray(np.ascontiguousarray(frame)).save(temporary, format="PNG")
