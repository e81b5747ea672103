"""How far a clip is, and how long it will still take: preparing and decoding chunks count, too.

Sampling reports its steps. Before the first step of a chunk prompts and pictures are encoded, after its last one the
chunk is decoded; both take less than a step's time on a GPU and many on a CPU. What they take is measured chunk by
chunk; until a chunk has shown it, it is assumed (``libs.stages.clip.clip_costs``). See ``libs.progress`` for showing
it.
"""

import time
from collections.abc import Callable
from statistics import fmean

from libs.stages.clip.clip_costs import RelativeCosts

DECODING = "decoding"
ENCODING = "encoding"

Report = Callable[[int, int, str, float | None], None]
"""Called with (steps' worth done, in all, a phrase, seconds left or None where nothing was measured)."""


class ClipProgress:
    """Stands between sampling, which counts steps, and ``report``.

    Args:
        report: who is told.
        steps: of each chunk.
        assumed: what the parts of a chunk take, until they were measured.
        clock: seconds.
        on_measured: told what the parts of the finished clip took; not where each chunk had a single step, which tells
            nothing of what comes before it.
    """

    def __init__(
        self,
        report: Report,
        steps: int,
        assumed: RelativeCosts,
        clock: Callable[[], float] = time.monotonic,
        on_measured: Callable[[RelativeCosts], None] = lambda _: None,
    ) -> None:
        self._report = report
        self._steps = steps
        self._clock = clock
        self._on_measured = on_measured
        self._assumed = assumed
        self._resumed = self._sampled = 0
        self._plain: list[float] = []
        """Seconds of each step that was not the first of its chunk."""
        self._beginnings: list[float] = []
        """Seconds of the first step of each chunk, and of what comes before it."""
        self._decoding: list[float] = []
        self._last: tuple[float, int] | None = None

    def __call__(self, done: int, total: int, phrase: str) -> None:
        """What sampling reports: steps done of all, and a phrase."""
        now = self._clock()
        if phrase == ENCODING:
            self._encodes(now)
            return
        if self._last is not None and done < self._last[1]:  # a second attempt, in smaller chunks
            self._begin_again()
        is_resumed = phrase.endswith("resumed")
        if self._last is not None and not is_resumed:
            self._measure(now - self._last[0], done, self._last[1])
        self._resumed += is_resumed
        self._last = now, done
        is_decoding = not is_resumed and done % self._steps == 0 and self._sampled > len(self._decoding) * self._steps
        # What was resumed took no time: it counts on neither side.
        skipped = self._resumed * self._steps
        costs, decoded = self._costs(), len(self._decoding)
        chunks_left = max(0, total // self._steps - self._resumed - decoded)
        done_in_steps = max(0, done - skipped) + decoded * costs.decoding
        total_in_steps = max(1, total - skipped) + (chunks_left + decoded) * costs.decoding
        self._report(
            min(round(done_in_steps), round(total_in_steps)),
            round(total_in_steps),
            f"{phrase}, {DECODING}" if is_decoding else phrase,
            self._seconds_left(max(0, total - done), chunks_left, costs),
        )

    def _begin_again(self) -> None:
        self._resumed = self._sampled = 0
        self._plain, self._beginnings, self._decoding = [], [], []
        self._last = None

    def _measure(self, seconds: float, done: int, before: int) -> None:
        if done > before:
            self._sampled += done - before
            begins = before % self._steps == 0
            (self._beginnings if begins else self._plain).append(seconds / (done - before))
        elif done and done % self._steps == 0 and self._sampled > len(self._decoding) * self._steps:
            self._decoding.append(seconds)

    def _step_seconds(self) -> float | None:
        """Seconds of one step without the work before it; None before the first step."""
        if self._plain:
            return fmean(self._plain)
        return self._beginnings[0] / (1 + self._assumed.first) if self._beginnings else None

    def _costs(self) -> RelativeCosts:
        """What is known by now."""
        step = self._step_seconds()
        if not step:
            return self._assumed
        first, later = self._assumed.first, self._assumed.later
        if self._plain and self._beginnings:
            first = max(0.0, self._beginnings[0] / step - 1)
        if self._plain and len(self._beginnings) > 1:
            later = max(0.0, fmean(self._beginnings[1:]) / step - 1)
        decoding = fmean(self._decoding) / step if self._decoding else self._assumed.decoding
        return RelativeCosts(decoding, first, later)

    def _seconds_left(self, steps_left: int, chunks_left: int, costs: RelativeCosts) -> float | None:
        step = self._step_seconds()
        if step is None:
            return None
        to_begin = steps_left // self._steps  # chunks whose first step is still to come
        return step * (steps_left + chunks_left * costs.decoding + to_begin * costs.later)

    def _encodes(self, now: float) -> None:
        """All frames are there, so the last chunk is decoded; the last frames are written."""
        if self._last is not None and self._sampled > len(self._decoding) * self._steps:
            self._decoding.append(now - self._last[0])
        costs = self._costs()
        total = round(max(1, self._sampled) + len(self._decoding) * costs.decoding)
        self._report(total, total, ENCODING, None)
        if self._plain and self._decoding:
            self._on_measured(costs)
