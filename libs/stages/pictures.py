"""The small pictures by which a person follows a request on a page: reference, driver, other videos.

Animated ones show the first seconds at true speed. Nothing is computed from them. See ``libs.storage.previews`` and
``libs.media.previews.data_uri`` for how a page gets to them.
"""

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from libs.media.pictures.image import read_image
from libs.media.previews.preview import animated_webp, side_by_side
from libs.media.previews.tiles import scaled_to_fit
from libs.media.video.probe import probe_video
from libs.media.video.reader import read_frames
from libs.stages.animation_files import DRIVER_PICTURE_FILE, REFERENCE_PICTURE_FILE
from libs.stages.request.request_media import RequestMedia

Frame = npt.NDArray[np.uint8]

BYTE_LIMIT = 400_000
"""Of one picture: a page shows several."""

_SECONDS = 4
_HEIGHT = 200
_STILL_SIDE = 640


def draw_media(media: RequestMedia, folder: Path) -> None:
    """The reference picture, and the first seconds of the driver's part that is used, into ``folder``."""
    still = Image.fromarray(scaled_to_fit(read_image(media.reference), _STILL_SIDE))
    still.save(folder / REFERENCE_PICTURE_FILE, quality=85, optimize=True)
    used = media.used_frames
    frames = _beginning(read_frames(media.driver, 1, used.start, used.stop), media.frame_rate)
    (folder / DRIVER_PICTURE_FILE).write_bytes(animated_webp(frames, media.frame_rate, BYTE_LIMIT))


def draw_video(video: Path, picture: Path) -> None:
    """The first seconds of any video."""
    rate = probe_video(video).frame_rate
    picture.write_bytes(animated_webp(_beginning(read_frames(video), rate), rate, BYTE_LIMIT))


def draw_columns(columns: Mapping[str, Frame | Iterable[Frame]], rate: Fraction, picture: Path) -> None:
    """The first seconds of several videos beside each other; a column that is one frame stands still."""
    picture.write_bytes(animated_webp(_beginning(side_by_side(columns, _HEIGHT), rate), rate, BYTE_LIMIT))


def frames_in_picture(rate: Fraction) -> int:
    """How many frames of a video of this rate an animated picture is made of, at most."""
    return max(1, round(_SECONDS * rate))


def _beginning(frames: Iterable[Frame], rate: Fraction) -> Iterator[Frame]:
    return islice(frames, frames_in_picture(rate))
