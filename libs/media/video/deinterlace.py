"""Interlaced frames -> progressive ones, one for each.

A camera of the television age stores two fields in a frame, the odd and the even rows, half a frame period apart; what
moves has combs.
"""

from collections import deque
from collections.abc import Iterator
from fractions import Fraction

import av
import av.filter

_FILTER = "mode=send_frame:parity=auto:deint=interlaced"
_END = (av.BlockingIOError, av.EOFError)


def deinterlaced(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Yield the frames at the same times; frames flagged as interlaced show their earlier field.

    FFmpeg's ``bwdif`` fills in the rows of the later field from the frames around. Frames up to the first interlaced
    one are handed through untouched, and progressive ones after it too. Memory: some five frames.
    """
    filling: _Deinterlacer | None = None
    for frame in frames:
        if filling is not None and not filling.takes(frame):
            yield from filling.finish()
            filling = None
        if filling is None:
            if not frame.interlaced_frame:
                yield frame
                continue
            filling = _Deinterlacer(frame)
        yield from filling.push(frame)
    if filling is not None:
        yield from filling.finish()


class _Deinterlacer:
    """A filter graph for frames of one size and format; it lags one frame behind."""

    def __init__(self, first: av.VideoFrame) -> None:
        self._shape = _shape(first)
        self._times: deque[tuple[int | None, Fraction]] = deque()
        graph = av.filter.Graph()
        graph.threads = 1
        # The graph has no use for time: what the file says of it is kept beside it, however odd.
        source = graph.add_buffer(width=first.width, height=first.height, format=first.format, time_base=Fraction(1))
        graph.link_nodes(source, graph.add("bwdif", _FILTER), graph.add("buffersink")).configure()
        self._graph = graph

    def takes(self, frame: av.VideoFrame) -> bool:
        return _shape(frame) == self._shape

    def push(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        self._times.append((frame.pts, frame.time_base))
        self._graph.vpush(frame)
        yield from self._ready()

    def finish(self) -> Iterator[av.VideoFrame]:
        self._graph.vpush(None)
        yield from self._ready()

    def _ready(self) -> Iterator[av.VideoFrame]:
        while True:
            try:
                frame = self._graph.vpull()
            except _END:
                return
            frame.pts, frame.time_base = self._times.popleft()
            yield frame


def _shape(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name
