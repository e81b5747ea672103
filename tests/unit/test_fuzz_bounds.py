"""The bounds that fuzzers hold calls to: what is measured, and that nothing escapes it."""

import ctypes
import os
import sys
import time

import pytest

from tests import fuzz_bounds
from tests.fuzz_bounds import BoundExceededError, call_within


def test_results_and_errors_come_back() -> None:
    assert call_within(60, 50, sorted, [3, 1, 2], reverse=True) == [3, 2, 1]
    assert len(call_within(60, 50, bytes, 5_000_000)) == 5_000_000
    with pytest.raises(ZeroDivisionError):
        call_within(60, 50, divmod, 1, 0)


def test_nothing_the_call_does_reaches_this_process() -> None:
    remembered: list[int] = []
    call_within(60, 50, remembered.append, 1)
    assert remembered == []


def _compute() -> None:
    while True:
        pass


def test_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BoundExceededError, match=r"0\.2 s of processor time"):
        call_within(0.2, 50, _compute)
    monkeypatch.setattr(fuzz_bounds, "_LONGEST_REST", 0.3)
    with pytest.raises(BoundExceededError, match="has computed nothing for"):
        call_within(60, 50, time.sleep, 600)


def test_a_call_that_gets_no_processor_does_not_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_bounds, "_LONGEST_REST", 0.2)
    monkeypatch.setattr(fuzz_bounds, "_processor_seconds", lambda _: 0.0)  # as on a busy machine
    assert call_within(60, 50, _compute_for, 1.0) == "done"


def _compute_for(seconds: float) -> str:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
    return "done"


def _take_for_a_moment(megabytes: int) -> int:
    return len(b"x" * (megabytes * 1_000_000))


def _take_more_and_more() -> None:
    kept = []
    while True:
        kept.append(b"x" * 10_000_000)


def test_memory_is_bounded_and_what_was_freed_again_counts() -> None:
    assert call_within(60, 100, _take_for_a_moment, 50)
    with pytest.raises(BoundExceededError, match="grew by"):
        call_within(60, 100, _take_for_a_moment, 150)
    with pytest.raises(BoundExceededError, match="grew by"):
        call_within(60, 100, _take_more_and_more)


def test_a_crash_is_a_failure_of_the_call() -> None:
    with pytest.raises(BoundExceededError, match="SIGSEGV"):
        call_within(60, 50, ctypes.string_at, 0)
    with pytest.raises(BoundExceededError, match="without an answer"):
        call_within(60, 50, os._exit, 0)


def _is_traced() -> bool:
    return sys.gettrace() is not None


def test_a_tracer_does_not_slow_the_call_down() -> None:
    before = sys.gettrace()
    sys.settrace(lambda *_: None)
    try:
        assert not call_within(60, 50, _is_traced)
    finally:
        sys.settrace(before)
