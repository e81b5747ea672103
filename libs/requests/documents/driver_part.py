"""Which part of a driver a request asks for: ``start`` and ``duration``, in seconds or frames, as exact frame numbers.

A frame belongs to a part if it is shown at the part's start or later, and before its end: the frames that
``ffmpeg -ss START -t DURATION`` keeps when it encodes again. See ``libs.media.video.reader`` for reading them.
"""

import math
import re
from fractions import Fraction
from typing import Any

from libs.errors import InputError

LONGEST_SECONDS = 43_200
"""No video is longer (``libs.media.limits``)."""

_SECONDS = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) ?s(?:ec(?:onds?)?)?")
_CLOCK = re.compile(r"(?:([0-9]{1,2}):)?([0-9]{1,3}):([0-5]?[0-9](?:\.[0-9]{1,6})?)")
_FRAMES = re.compile(r"([0-9]{1,9}) ?f(?:rames?)?")

EXPECTED = "must be seconds, such as 2.5 or 1:30.5, or frames of the driver, such as 75f"


def normalised_time(value: Any) -> Any:
    """Seconds as a float, frames as text such as ``75f``; what is neither comes back as it is.

    Raises:
        ValueError: text that is no time, or a number that no video can have.
    """
    if isinstance(value, str):
        value = _read(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if not 0 <= value <= LONGEST_SECONDS:  # also false for what is no number
        raise ValueError(f"must be 0 to {LONGEST_SECONDS} seconds")
    return float(value)


def _read(text: str) -> float | str:
    if match := _FRAMES.fullmatch(text):
        return f"{int(match[1])}f"
    if match := _SECONDS.fullmatch(text):
        return float(match[1])
    if match := _CLOCK.fullmatch(text):
        hours, minutes, seconds = (Fraction(part or 0) for part in match.groups())
        return float(3600 * hours + 60 * minutes + seconds)
    raise ValueError(EXPECTED)


def frames_of_part(
    start: float | str | None, duration: float | str | None, frame_rate: Fraction, frame_count: int
) -> range:
    """The driver's frames that a request uses, before its frame interval.

    Args:
        start, duration: as :func:`normalised_time` gives them; None for the beginning, and for all that follows.
        frame_rate: of the driver, frames per second.
        frame_count: of the driver, at least 1.

    Raises:
        InputError: the part begins or ends behind the driver's end, or holds no frame.
    """
    first = 0 if start is None else _first_frame_from(_seconds(start, frame_rate), frame_rate)
    length = f"the driver lasts {_shown(frame_count / frame_rate)} ({frame_count} frames)"
    if first >= frame_count:
        raise InputError(f"start: {_asked(start)} lies behind the end: {length}")
    if duration is None:
        return range(first, frame_count)
    begin = Fraction(0) if start is None else _seconds(start, frame_rate)
    end = begin + _seconds(duration, frame_rate)
    after = _first_frame_from(end, frame_rate)
    if after <= first:
        raise InputError(
            f"duration: {_asked(duration)} holds no frame at {_number(frame_rate)} frames a second; ask for more"
        )
    if after > frame_count + 1:  # a length that a player shows may be a frame longer than the pictures are
        raise InputError(
            f"duration: the part would end at {_shown(end)}, but {length}; shorten duration, or leave it out to take "
            "all that follows"
        )
    return range(first, min(after, frame_count))


def _seconds(time: float | str, frame_rate: Fraction) -> Fraction:
    return int(time.removesuffix("f")) / frame_rate if isinstance(time, str) else Fraction(repr(time))


def _first_frame_from(seconds: Fraction, frame_rate: Fraction) -> int:
    return math.ceil(seconds * frame_rate)


def _asked(time: float | str | None) -> str:
    return f"frame {time.removesuffix('f')}" if isinstance(time, str) else f"{_number(Fraction(repr(time or 0.0)))} s"


def _shown(seconds: Fraction) -> str:
    return f"{_number(seconds)} s"


def _number(value: Fraction) -> str:
    return f"{float(value):.3f}".rstrip("0").rstrip(".")
