"""Pictures whose file names its own colours (an ICC profile) -> sRGB, which everything behind takes them for.

Phones save in Display P3, cameras in Adobe RGB, print files in CMYK: without this such a picture looks pale or wrong.
What does not belong here: reading files (``image``), the colours of videos (``colour``).
"""

import io
import logging
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageCms

_MODES = {
    "RGB ": ("RGB", {"RGB", "RGBA", "RGBX", "RGBa", "P", "PA"}),
    "CMYK": ("CMYK", {"CMYK"}),
    "GRAY": ("L", {"L", "LA", "La", "1"}),
}
"""Colour space of a profile -> Pillow's mode to convert from, and the modes of pictures it can belong to."""

_PROFILE_IS_SRGB = "sRGB"
"""What the description of every common sRGB profile holds; such a picture is left as it is."""

_log = logging.getLogger(__name__)

Conversion = Callable[[Image.Image], Image.Image]


def to_srgb(image: Image.Image, path: Path) -> Conversion | None:
    """What brings ``image``, or a part of it, from its profile to RGB; None for no profile, an sRGB or a useless one.

    Relative colorimetric with black point compensation, as browsers show pictures. Colours that sRGB cannot hold are
    clipped; transparency is dropped. The profile of 16-bit grey is left aside. ``path`` is for the log only.
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
        _log.warning("%s: its colour profile is damaged and left aside: %s", path.name, error)
        return None

    def convert(part: Image.Image) -> Image.Image:
        part = part.convert("RGBA") if part.mode == "RGBa" else part
        return ImageCms.applyTransform(part if part.mode == mode else part.convert(mode), transform) or part

    return convert
