"""Pictures whose file names its own colours (an ICC profile) -> sRGB, which everything behind takes them for.

Phones save in Display P3, cameras in Adobe RGB, print files in CMYK: without this such a picture looks pale or wrong.
What does not belong here: reading files (``image``), the colours of videos (``colour``).
"""

import io
import logging
from pathlib import Path

from PIL import Image, ImageCms

_MODES = {
    "RGB ": ("RGB", {"RGB", "RGBA", "RGBX", "P", "PA"}),
    "CMYK": ("CMYK", {"CMYK"}),
    "GRAY": ("L", {"L", "LA", "1"}),
}
"""Colour space of a profile -> Pillow's mode to convert from, and the modes of pictures it can belong to."""

_PROFILE_IS_SRGB = "sRGB"
"""What the description of every common sRGB profile holds; such a picture is left as it is."""

_log = logging.getLogger(__name__)


def to_srgb(image: Image.Image, path: Path) -> Image.Image:
    """``image`` converted from its profile, as RGB; as it is where it has none, an sRGB one, or a useless one.

    Relative colorimetric with black point compensation, as browsers show pictures. Colours that sRGB cannot hold are
    clipped; transparency is dropped. The profile of 16-bit grey is left aside. ``path`` is for the log only.
    """
    data = image.info.get("icc_profile")
    if not data:
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        mode, possible = _MODES.get(profile.profile.xcolor_space, ("", set()))
        if image.mode not in possible or _PROFILE_IS_SRGB in ImageCms.getProfileDescription(profile):
            return image
        converted = ImageCms.profileToProfile(
            image if image.mode == mode else image.convert(mode),
            profile,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        _log.warning("%s: its colour profile is damaged and left aside: %s", path, error)
        return image
    return image if converted is None else converted
