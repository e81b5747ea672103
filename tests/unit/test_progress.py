"""Progress lines: the first and the last of a stage, few between, with the time left."""

import pytest

from libs.progress import describe_progress, parse_progress, progress_lines


def test_lines_are_few_and_the_last_is_never_missing() -> None:
    lines: list[str] = []
    now = [0.0]
    report = progress_lines(lines.append, clock=lambda: now[0])
    for done in range(101):
        now[0] = done * 0.2
        report("sampling", done, 100)
    assert lines[0] == "sampling: 0 of 100, 0 %"
    assert lines[-1] == "sampling: 100 of 100, 100 %"
    assert len(lines) == 5  # at 0, 5, 10, 15 and 20 seconds


def test_stages_are_counted_apart() -> None:
    lines: list[str] = []
    report = progress_lines(lines.append, clock=lambda: 0.0)
    report("poses", 1, 9)
    report("preview", 1, 9)
    assert [line.partition(":")[0] for line in lines] == ["poses", "preview"]


def test_the_time_left_counts_only_what_was_done_since_the_first_report() -> None:
    lines: list[str] = []
    now = [0.0]
    report = progress_lines(lines.append, clock=lambda: now[0])
    report("sampling", 31, 60)  # the first step after a chunk that was stored before
    now[0] = 10.0
    report("sampling", 32, 60)
    assert lines == ["sampling: 31 of 60, 51 %", "sampling: 32 of 60, 53 %, 280 s left"]


def test_a_line_says_units_and_what_is_at_hand() -> None:
    assert describe_progress("sampling", 12, 30, 1.0, "chunk 1 of 2") == (
        "sampling: 12 of 30, 40 %, 18 s left (chunk 1 of 2)"
    )
    assert describe_progress("poses", 7, None, 3.0) == "poses: 7"
    assert describe_progress("hashing", 12 * 10**8, 44 * 10**8, 85e6, "a", in_bytes=True) == (
        "hashing: 1.2 GB of 4.4 GB, 27 %, 85.0 MB/s, 38 s left (a)"
    )


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (describe_progress("sampling", 12, 28, 0.1, "chunk 2 of 4"), "sampling, chunk 2 of 4, 42 %, 2 min left"),
        (describe_progress("poses", 7, 10, 0.0), "poses, 70 %"),
        (describe_progress("hashing", 10**9, 4 * 10**9, 10**8, in_bytes=True), "hashing, 25 %, 20 s left"),
    ],
)
def test_a_line_of_the_log_is_read_again(line: str, shown: str) -> None:
    parsed = parse_progress(line)
    assert parsed is not None
    assert parsed.describe(seconds_ago=10.0) == shown


@pytest.mark.parametrize("line", ["sandbox: warm, 0.1 s", "memory plan, calculated: all", "", "x" * 2000, "a: b"])
def test_other_lines_of_the_log_are_no_progress(line: str) -> None:
    assert parse_progress(line) is None
