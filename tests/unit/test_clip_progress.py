"""Progress of a clip: decoding counts, so that the time left half-way is about the truth."""

import pytest

from libs.progress import progress_lines
from libs.stages import clip_progress
from libs.stages.clip_progress import ENCODING, ClipProgress

STEPS = 6


@pytest.fixture(autouse=True)
def _nothing_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_progress, "_measured", {})


def told(chunks: int, decoding: float, step: float = 2.0, model: str = "sandbox") -> list[tuple[float, str]]:
    """(time, line) of a clip whose steps and decoding take these seconds."""
    now = [0.0]
    lines: list[tuple[float, str]] = []
    report = progress_lines(lambda line: lines.append((now[0], line)), clock=lambda: now[0])
    progress = ClipProgress(
        lambda done, all_, phrase: report("sampling", done, all_, phrase), STEPS, model, 14.0, lambda: now[0]
    )
    total = chunks * STEPS
    for chunk in range(chunks):
        progress(chunk * STEPS, total, f"chunk {chunk + 1} of {chunks}")
        for done in range(1, STEPS + 1):
            now[0] += step
            progress(chunk * STEPS + done, total, f"chunk {chunk + 1} of {chunks}")
        now[0] += decoding
    progress(total, total, ENCODING)
    return lines


@pytest.mark.parametrize(("chunks", "decoding"), [(2, 28.0), (4, 1.0), (4, 60.0), (3, 6.0)])
def test_half_way_the_time_left_is_about_the_truth(chunks: int, decoding: float) -> None:
    lines = told(chunks, decoding)
    end = lines[-1][0]
    told_at, line = next((at, line) for at, line in lines if at >= end / 2)
    left = float(line.split(" s left")[0].rsplit(" ", 1)[1])
    assert (end - told_at) / 1.5 <= left <= (end - told_at) * 1.5, line


def test_the_last_line_is_the_only_one_at_the_end() -> None:
    lines = [line for _, line in told(2, 28.0)]
    assert lines[-1].endswith("100 % (encoding)")
    assert not any("100 %" in line for line in lines[:-1])


def test_the_next_clip_knows_what_decoding_takes_from_its_first_step_on() -> None:
    told(1, 10.0)
    lines = told(1, 10.0)
    at, line = lines[2]
    left = float(line.split(" s left")[0].rsplit(" ", 1)[1])
    assert left == pytest.approx(22.0 - at, rel=0.2)


def test_chunks_that_were_stored_before_count_on_neither_side() -> None:
    seen: list[tuple[int, int, str]] = []
    progress = ClipProgress(lambda *report: seen.append(report), STEPS, "m", 3.0, lambda: float(len(seen)))
    progress(6, 12, "chunk 1 of 2, resumed")
    progress(6, 12, "chunk 2 of 2")
    progress(7, 12, "chunk 2 of 2")
    assert seen == [(0, 9, "chunk 1 of 2, resumed"), (0, 9, "chunk 2 of 2"), (1, 9, "chunk 2 of 2")]
