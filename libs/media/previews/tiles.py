"""Put frames beside and below each other, with captions: shared by previews and contact sheets.

All arrays are uint8 RGB [H, W, 3].
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Frame = npt.NDArray[np.uint8]

GAP = 4
"""Pixels between tiles."""

BACKGROUND = (24, 24, 28)
TEXT_COLOUR = (225, 225, 225)


def scaled_to_height(frame: Frame, height: int) -> Frame:
    """``frame`` scaled to ``height`` pixels with its aspect ratio kept."""
    width = max(1, round(frame.shape[1] * height / frame.shape[0]))
    if frame.shape[:2] == (height, width):
        return frame
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS))


def scaled_to_fit(frame: Frame, longest_side: int) -> Frame:
    """``frame`` scaled down so that no side is longer than ``longest_side``; never scaled up."""
    factor = longest_side / max(frame.shape[:2])
    return frame if factor >= 1 else scaled_to_height(frame, max(1, round(frame.shape[0] * factor)))


def caption_bar(text: str, width: int, text_height: int = 14) -> Frame:
    """One line of text on the background, ``width`` pixels wide; cut off where it does not fit."""
    bar = Image.new("RGB", (width, text_height + 8), BACKGROUND)
    ImageDraw.Draw(bar).text((GAP, 3), text, fill=TEXT_COLOUR, font=_font(text_height))
    return np.asarray(bar)


def beside(frames: Sequence[Frame]) -> Frame:
    """Frames in a row, top-aligned, with gaps."""
    return _stack(frames, axis=1)


def below(frames: Sequence[Frame]) -> Frame:
    """Frames in a column, left-aligned, with gaps."""
    return _stack(frames, axis=0)


def _stack(frames: Sequence[Frame], axis: int) -> Frame:
    across = max(frame.shape[1 - axis] for frame in frames)
    parts: list[Frame] = []
    for frame in frames:
        if parts:
            parts.append(_blank(GAP, across, axis))
        missing = across - frame.shape[1 - axis]
        filled = np.concatenate([frame, _blank(missing, frame.shape[axis], 1 - axis)], axis=1 - axis)
        parts.append(filled if missing else frame)
    return np.concatenate(parts, axis=axis)


def _blank(along: int, across: int, axis: int) -> Frame:
    shape = (along, across, 3) if axis == 0 else (across, along, 3)
    return np.broadcast_to(np.array(BACKGROUND, np.uint8), shape)


@lru_cache
def _font(height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(height)  # Pillow's own font: the same on every machine
