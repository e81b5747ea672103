"""How far a clip is, counted in steps' worth of time: decoding a chunk takes time, too.

Sampling reports its steps; between the last step of a chunk and the beginning of the next one the chunk is decoded,
which takes a few steps' time on a GPU and many on a CPU. What decoding took is measured chunk by chunk; until the first
is decoded, what the last clip of this process took is assumed. What does not belong here: showing it
(``libs.progress``).
"""

import time
from collections.abc import Callable

DECODING_IN_STEPS = 3.0
"""Steps that decoding a chunk takes, where nothing is known yet."""

DECODING_IN_STEPS_OF_SANDBOX = 7.0
"""The same for the sandbox's network, whose steps are tiny."""

DECODING = "decoding"
ENCODING = "encoding"

Report = Callable[[int, int, str], None]
"""Called with (steps' worth done, in all, a phrase)."""

_measured: dict[str, float] = {}


class ClipProgress:
    """Stands between sampling, which counts steps, and ``report``.

    Args:
        report: who is told.
        steps: of each chunk.
        model: whose speed is remembered for the next clip.
        assumed: steps that decoding takes, where this process has made no clip with ``model`` yet.
        clock: seconds.
    """

    def __init__(
        self,
        report: Report,
        steps: int,
        model: str,
        assumed: float = DECODING_IN_STEPS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._report = report
        self._steps = steps
        self._model = model
        self._clock = clock
        self._decoding = _measured.get(model, assumed)
        self._decoded = self._resumed = 0
        self._sampling_seconds = 0.0
        self._sampled_steps = 0
        self._last: tuple[float, int] | None = None

    def __call__(self, done: int, total: int, phrase: str) -> None:
        """What sampling reports: steps done of all, and a phrase."""
        now = self._clock()
        if phrase == ENCODING:
            self._encodes(now)
            return
        if self._last is not None and done < self._last[1]:  # a second attempt, in smaller chunks
            self._begin_again()
        begins_chunk = done % self._steps == 0
        if self._last is not None:
            before, steps_before = self._last
            if done > steps_before and not phrase.endswith("resumed"):
                self._sampling_seconds += now - before
                self._sampled_steps += done - steps_before
            elif done == steps_before and done and begins_chunk and self._sampled_steps:
                self._decoded += 1
                self._decoding = _in_steps(now - before, self._sampling_seconds / self._sampled_steps)
                _measured[self._model] = self._decoding
        if phrase.endswith("resumed"):
            self._resumed += 1
        self._last = now, done
        # What was resumed took no time: it counts on neither side.
        chunks_left = max(0, total // self._steps - self._resumed)
        skipped = self._resumed * self._steps
        done_in_steps = max(0, done - skipped) + self._decoded * self._decoding
        total_in_steps = max(1, total - skipped) + chunks_left * self._decoding
        if begins_chunk and done and self._decodes_now(phrase):
            phrase = f"{phrase}, {DECODING}"
        self._report(min(round(done_in_steps), round(total_in_steps)), round(total_in_steps), phrase)

    def _begin_again(self) -> None:
        self._decoded = self._resumed = self._sampled_steps = 0
        self._sampling_seconds = 0.0
        self._last = None

    def _encodes(self, now: float) -> None:
        """All frames are there, so the last chunk is decoded; the last frames are written."""
        if self._last is not None and self._sampled_steps:
            _measured[self._model] = _in_steps(now - self._last[0], self._sampling_seconds / self._sampled_steps)
        total = round(max(1, self._sampled_steps) + (self._decoded + 1) * self._decoding)
        self._report(total, total, ENCODING)

    def _decodes_now(self, phrase: str) -> bool:
        """True after the last step of a chunk, False where the next one begins."""
        return not phrase.endswith("resumed") and self._sampled_steps > self._decoded * self._steps


def _in_steps(seconds: float, step: float) -> float:
    return seconds / step if step > 0 else DECODING_IN_STEPS
