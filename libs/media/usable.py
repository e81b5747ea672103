"""May a file be the reference or the driver of a clip? Quick checks, before anything is uploaded or computed.

See ``libs.media.video.probe`` for measuring.
"""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from libs.errors import MediaError
from libs.media.file_kind import kind_of_file
from libs.media.limits import MINIMUM_SIDE
from libs.media.pictures.image import Picture, read_picture
from libs.media.pictures.still import is_still
from libs.media.sound.audio_track import try_sound
from libs.media.video.frame_timing import DEFAULT_RATE
from libs.media.video.reader import read_frames
from libs.media.video.video_file import open_video, scan_video
from libs.media.video.writer import VideoWriter

_EXCHANGED = "are reference and driver exchanged?"


def whole_video(_frame_rate: Fraction, frame_count: int) -> range:
    """All frames."""
    return range(frame_count)


def check_reference(path: Path) -> Picture:
    """The reference picture, read as a whole.

    Raises:
        MediaError: it cannot be read; a video is called one.
    """
    try:
        return read_picture(path)
    except MediaError as error:
        # What begins as a picture is not handed to the video decoders, which know no bounds on its scans.
        if not (kind_of_file(path) or "").startswith("a picture") and _is_video(path):
            raise MediaError(
                f"{path}: not a picture but a video; {_EXCHANGED} To animate a frame of it, save that as PNG first"
            ) from error
        raise


def check_driver(
    path: Path, *, keep_audio: bool, part_of: Callable[[Fraction, int], range] = whole_video
) -> str | None:
    """Look at all packets of a driver, decode its first frame, and try out its sound if it is wanted.

    Args:
        path: the file.
        keep_audio: whether the sound is wanted.
        part_of: gives the frames that are used, from the frame rate and the number of frames.

    Returns:
        Why the sound will be converted to AAC; None where it is copied, not wanted, or not there.

    Raises:
        MediaError: no clip can be made of it.
        InputError: from ``part_of``, where there is no such part.
    """
    next(read_frames(path))
    if is_still(path):
        part_of(DEFAULT_RATE, 1)
        return None
    timing = scan_video(path)
    part = part_of(timing.frame_rate, timing.shown_count)
    begin, seconds = part.start / timing.frame_rate, len(part) / timing.frame_rate
    return try_sound(path, seconds, begin) if keep_audio else None


def try_frame_rate(frame_rate: Fraction) -> None:
    """Write a tiny clip of this rate, as odd ones are refused only when the file is written.

    Raises:
        InputError: no mp4 can have this rate.
    """
    with (
        TemporaryDirectory() as folder,
        VideoWriter(Path(folder) / "clip.mp4", MINIMUM_SIDE, MINIMUM_SIDE, frame_rate) as writer,
    ):
        for _ in range(2):
            writer.write(np.zeros((MINIMUM_SIDE, MINIMUM_SIDE, 3), np.uint8))


def _is_video(path: Path) -> bool:
    try:
        with open_video(path):
            return not is_still(path)
    except MediaError:
        return False
