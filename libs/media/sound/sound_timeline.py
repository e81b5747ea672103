"""Decoded sound -> one unbroken stream of samples that begins with the clip: pure functions.

Time stamps of real files are doubled, missing, out of order or rounded, and recordings have holes. A single stamp that
contradicts its neighbours is a broken stamp: the samples are put where the others say. A shift that lasts is real: a
hole is filled with silence, what overlaps is left out. So the sound stays in step, whatever a player makes of stamps.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median_high, median_low

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
"""[channels, samples]"""

_NEIGHBOURS = 2
"""Pieces before and after one whose time stamps are compared with its own."""

_TOLERANCE = 0.005
"""Seconds that samples may stray before silence is put in or samples are left out: half of what ears notice at all."""

_LONGEST_SILENCE = 1.0
"""Seconds of silence made at a time."""


@dataclass
class _Piece:
    samples: Samples
    counted_start: int
    shift: float | None
    """Samples between the place its time stamp names and the number of samples before it; None without a stamp."""


def continuous_sound(pieces: Iterable[tuple[float | None, Samples]], rate: int) -> Iterator[Samples]:
    """Lay pieces one behind the other from time 0 on; what lies before is left out.

    ``pieces`` are (seconds on the clip's time line or None, samples) in the order of the file, all with the same number
    of channels at ``rate`` samples per second.
    """
    written = 0
    for piece, shift in _with_believed_shift(pieces, rate):
        gap = round(piece.counted_start + shift) - written
        if written and abs(gap) <= _TOLERANCE * rate:
            gap = 0
        while gap > 0:
            count = min(gap, math.ceil(_LONGEST_SILENCE * rate))
            yield np.zeros((piece.samples.shape[0], count), np.float32)
            written, gap = written + count, gap - count
        audible = piece.samples[:, -gap:] if gap else piece.samples
        if audible.shape[1]:
            yield audible
            written += audible.shape[1]


def _with_believed_shift(pieces: Iterable[tuple[float | None, Samples]], rate: int) -> Iterator[tuple[_Piece, float]]:
    """Each piece with the median shift of itself and its neighbours."""
    window: deque[_Piece] = deque(maxlen=2 * _NEIGHBOURS + 1)
    counted = 0
    believed = 0.0
    waiting = 0

    def believe(position: int) -> tuple[_Piece, float]:
        nonlocal believed
        near = list(window)[max(0, position - _NEIGHBOURS) : position + _NEIGHBOURS + 1]
        shifts = [piece.shift for piece in near if piece.shift is not None]
        if shifts:
            own = window[position].shift
            middle = (median_low(shifts), median_high(shifts))
            believed = min(middle, key=lambda shift: abs(shift - (believed if own is None else own)))
        return window[position], believed

    for seconds, samples in pieces:
        window.append(_Piece(samples, counted, None if seconds is None else seconds * rate - counted))
        counted += samples.shape[1]
        waiting += 1
        if waiting > _NEIGHBOURS:
            yield believe(len(window) - waiting)
            waiting -= 1
    while waiting:
        yield believe(len(window) - waiting)
        waiting -= 1
