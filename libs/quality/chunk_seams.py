"""Seams: jumps where a later chunk of a long clip takes over from the one before.

See ``colour_drift`` for what a chunk looks like as a whole.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]

NEIGHBOURS = 2
"""Steps on either side that a border is compared with."""


@dataclass(frozen=True)
class ChunkSeams:
    """Levels of 0 to 255, one per border in the clip's order; about zero where nothing can be seen."""

    excess: tuple[float, ...]

    @property
    def maximum(self) -> float:
        """The worst border; zero for a clip of one chunk."""
        return max(self.excess, default=0.0)


def measure_chunk_seams(frames: Iterable[Frame], chunk_starts: Sequence[int], continued_frames: int = 0) -> ChunkSeams:
    """Measure how much the difference at each chunk border exceeds those around it.

    With d(t) the mean absolute difference of frames t - 1 and t over all pixels and channels, the excess at step t is
    d(t) minus the median of d at up to two steps on either side (those at a border themselves left out), so that the
    motion at that place does not count. A border has two steps where it may show: the chunk's first frame, and the
    first one behind the ``continued_frames``, which repeat what its predecessor made. The larger excess counts.

    Args:
        frames: uint8 RGB [H, W, 3] of one size; two are held at a time.
        chunk_starts: the first frame of each chunk, ascending, the first chunk's 0.
        continued_frames: frames at the start of a chunk that stand for its predecessor's last ones.
    """
    steps = [0.0, *(_difference(*pair) for pair in pairwise(frames))]
    borders = [sorted({start, start + continued_frames}) for start in chunk_starts[1:]]
    at_borders = {step for border in borders for step in border}

    def excess(step: int) -> float:
        near = range(max(1, step - NEIGHBOURS), min(len(steps), step + NEIGHBOURS + 1))
        others = [steps[other] for other in near if other not in at_borders]
        return steps[step] - float(np.median(others)) if others else 0.0

    in_clip = ([step for step in border if 0 < step < len(steps)] for border in borders)
    return ChunkSeams(tuple(max(map(excess, border)) for border in in_clip if border))


def _difference(before: Frame, after: Frame) -> float:
    return float(np.abs(after.astype(np.int16) - before).mean())
