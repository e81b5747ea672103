"""Pictures whose file names its own colours (an ICC profile) -> sRGB, which everything behind takes them for.

Phones save in Display P3, cameras in Adobe RGB, print files in CMYK: without this such a picture looks pale or wrong.
See ``image`` for reading files, ``libs.media.video.colour`` for the colours of videos.
"""

import io
from collections.abc import Callable

from PIL import Image, ImageCms

_MODES = {
    "RGB ": ("RGB", {"RGB", "RGBA", "RGBX", "RGBa", "P", "PA"}),
    "CMYK": ("CMYK", {"CMYK"}),
    "GRAY": ("L", {"L", "LA", "La", "1"}),
}
"""Colour space of a profile -> Pillow's mode to convert from, and the modes of pictures it can belong to."""

_PROFILE_IS_SRGB = "sRGB"
"""What the description of every common sRGB profile holds; such a picture is left as it is."""

Conversion = Callable[[Image.Image], Image.Image]


class DamagedProfileError(Exception):
    """A colour profile that cannot be used; the picture can be read without it."""


def to_srgb(image: Image.Image) -> Conversion | None:
    """What brings ``image``, or a part of it, from its profile to RGB; None for no profile, an sRGB or a useless one.

    Relative colorimetric with black point compensation, as browsers show pictures. Colours that sRGB cannot hold are
    clipped; transparency is dropped. The profile of 16-bit grey is left aside.

    Raises:
        DamagedProfileError: the profile cannot be read.
    """
    data = image.info.get("icc_profile")
    if not data:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        mode, possible = _MODES.get(profile.profile.xcolor_space, ("", set()))
        if image.mode not in possible or _PROFILE_IS_SRGB in ImageCms.getProfileDescription(profile):
            return None
        transform = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        raise DamagedProfileError(str(error)) from error

    def convert(part: Image.Image) -> Image.Image:
        part = part.convert("RGBA") if part.mode == "RGBa" else part
        return ImageCms.applyTransform(part if part.mode == mode else part.convert(mode), transform) or part

    return convert
