"""Progress of a clip: the time left half-way is about the truth, whatever preparing and decoding take."""

import pytest

from libs.progress import progress_lines
from libs.stages.clip.clip_costs import SANDBOX_COSTS, RelativeCosts
from libs.stages.clip.clip_progress import ENCODING, ClipProgress

STEPS = 6


REAL = RelativeCosts(decoding=1.1, first=0.4, later=0.04)
"""About what is calculated for a real model (``libs.stages.clip.clip_costs``)."""


def told(
    chunks: int,
    costs: RelativeCosts,
    *,
    step: float = 2.0,
    steps: int = STEPS,
    assumed: RelativeCosts = SANDBOX_COSTS,
    encoding: float = 0.0,
) -> list[tuple[float, str]]:
    """(time, line) of a clip whose parts take so many steps' time; the last one when all is written."""
    now = [0.0]
    lines: list[tuple[float, str]] = []
    report = progress_lines(lambda line: lines.append((now[0], line)), clock=lambda: now[0])
    progress = ClipProgress(
        lambda done, all_, phrase, left: report("sampling", done, all_, phrase, left),
        steps,
        assumed,
        lambda: now[0],
    )
    total = chunks * steps
    for chunk in range(chunks):
        progress(chunk * steps, total, f"chunk {chunk + 1} of {chunks}")
        now[0] += step * (costs.later if chunk else costs.first)
        for done in range(1, steps + 1):
            now[0] += step
            progress(chunk * steps + done, total, f"chunk {chunk + 1} of {chunks}")
        now[0] += step * costs.decoding
    now[0] += encoding
    progress(total, total, ENCODING)
    return lines


def left_in(line: str) -> float:
    return float(line.partition(" s left")[0].rpartition(" ")[2])


def half_way(lines: list[tuple[float, str]]) -> tuple[float, float]:
    """What a person who looks at half-way reads, and how long it really takes from then on."""
    end = lines[-1][0]
    at, line = next((at, line) for at, line in reversed(lines) if at <= end / 2)
    return left_in(line) - (end / 2 - at), end / 2


@pytest.mark.parametrize("assumed", [REAL, SANDBOX_COSTS])
@pytest.mark.parametrize("chunks", [3, 4, 9])
@pytest.mark.parametrize(
    "costs",
    [
        RelativeCosts(decoding=14, first=2, later=1),
        RelativeCosts(decoding=0.5, first=0, later=0),
        RelativeCosts(decoding=3, first=6, later=0.5),
    ],
)
def test_half_way_the_first_chunk_has_shown_what_the_others_take(
    chunks: int, costs: RelativeCosts, assumed: RelativeCosts
) -> None:
    shown, really = half_way(told(chunks, costs, assumed=assumed))
    assert really / 1.5 <= shown <= really * 1.5


@pytest.mark.parametrize("steps", [4, 30])
@pytest.mark.parametrize("chunks", [1, 2])
@pytest.mark.parametrize("share", [0.8, 1.0, 1.2])
@pytest.mark.parametrize("assumed", [REAL, SANDBOX_COSTS])
def test_half_way_through_a_short_clip_the_assumption_does(
    chunks: int, steps: int, share: float, assumed: RelativeCosts
) -> None:
    costs = RelativeCosts(assumed.decoding * share, assumed.first * share, assumed.later * share)
    shown, really = half_way(told(chunks, costs, assumed=assumed, steps=steps, step=20.0))
    assert really / 1.5 <= shown <= really * 1.5


@pytest.mark.parametrize("chunks", [1, 2])
def test_as_the_sandbox_was_measured_it_is_right_from_the_second_step_on(chunks: int) -> None:
    """The clip of the demo on two cores: 3.85 s a step, 12 s for the first one, 48.5 s for decoding a chunk."""
    lines = told(chunks, RelativeCosts(48.5 / 3.85, 8.0 / 3.85, 5.0 / 3.85), step=3.85, steps=4, encoding=2.0)
    end = lines[-1][0]
    for at, line in lines[2:-1]:
        assert (end - at) / 1.5 <= left_in(line) <= (end - at) * 1.5, line


def test_the_last_line_is_the_only_one_at_the_end() -> None:
    lines = [line for _, line in told(2, RelativeCosts(14, 1, 1))]
    assert lines[-1].endswith("100 % (encoding)")
    assert not any("100 %" in line for line in lines[:-1])


def test_what_a_clip_measured_is_right_for_the_next_one_from_its_first_step_on() -> None:
    costs = RelativeCosts(5, 8, 0.5)
    now = [0.0]
    told_of: list[RelativeCosts] = []
    progress = ClipProgress(lambda *_: None, STEPS, REAL, lambda: now[0], told_of.append)
    for chunk in range(2):
        progress(chunk * STEPS, 2 * STEPS, "chunk")
        now[0] += 2 * (costs.later if chunk else costs.first)
        for done in range(1, STEPS + 1):
            now[0] += 2
            progress(chunk * STEPS + done, 2 * STEPS, "chunk")
        now[0] += 2 * costs.decoding
    progress(2 * STEPS, 2 * STEPS, ENCODING)
    (measured,) = told_of
    for name in ("decoding", "first", "later"):
        assert getattr(measured, name) == pytest.approx(getattr(costs, name))
    lines = told(1, costs, steps=1, assumed=measured)
    at, line = lines[1]
    assert left_in(line) == pytest.approx(lines[-1][0] - at, rel=0.1), "of a single step, too"


def test_a_clip_of_single_steps_measures_nothing_that_another_could_use() -> None:
    now = [0.0]
    told_of: list[RelativeCosts] = []
    progress = ClipProgress(lambda *_: None, 1, REAL, lambda: now[0], told_of.append)
    for done, phrase in ((0, "chunk"), (1, "chunk"), (1, ENCODING)):
        progress(done, 1, phrase)
        now[0] += 5
    assert told_of == []


def test_chunks_that_were_stored_before_count_on_neither_side() -> None:
    seen: list[tuple[int, int, str]] = []
    progress = ClipProgress(
        lambda done, all_, phrase, _: seen.append((done, all_, phrase)),
        STEPS,
        RelativeCosts(decoding=3, first=1, later=0.5),
        lambda: float(len(seen)),
    )
    progress(6, 12, "chunk 1 of 2, resumed")
    progress(6, 12, "chunk 2 of 2")
    progress(7, 12, "chunk 2 of 2")
    assert seen == [(0, 9, "chunk 1 of 2, resumed"), (0, 9, "chunk 2 of 2"), (1, 9, "chunk 2 of 2")]


def test_a_second_attempt_in_smaller_chunks_restarts_the_progress() -> None:
    left: list[float | None] = []
    now = [0.0]
    progress = ClipProgress(lambda *report: left.append(report[3]), STEPS, REAL, lambda: now[0])
    progress(0, 6, "chunk 1 of 1")
    now[0] = 500.0
    progress(1, 6, "chunk 1 of 1")
    progress(0, 1, "out of memory: once more")
    assert left[-1] is None
