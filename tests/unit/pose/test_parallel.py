import os
import threading

import numpy as np
import pytest

from libs.pose.networks.prefetch import ordered_map, prefetched, worker_count
from tests.waiting import wait_until


@pytest.mark.parametrize("workers", [1, 3, None])
def test_order_is_kept(workers):
    assert list(ordered_map(lambda value: value * 2, range(50), workers)) == [value * 2 for value in range(50)]


def test_items_are_advanced_by_one_thread_only():
    threads = set()

    def items():
        for value in range(20):
            threads.add(threading.get_ident())
            yield value

    list(ordered_map(str, items(), 4))
    assert threads == {threading.get_ident()}


def test_error_reaches_the_caller_and_ends_the_work():
    started = []

    def work(value):
        started.append(value)
        if value == 3:
            raise RuntimeError("third")

    with pytest.raises(RuntimeError, match="third"):
        list(ordered_map(work, range(1000), 2))
    assert len(started) < 20


def test_large_items_get_fewer_workers(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert worker_count() == worker_count(3 * 1920 * 1080) == 16
    assert worker_count(73_000_000) == 7
    assert worker_count(2**30) == worker_count(2**34) == 1


def test_there_is_at_least_one_worker():
    assert worker_count() >= 1


def test_prefetched_gives_the_same_items_and_runs_ahead():
    made: list[int] = []

    def items():
        for number in range(50):
            made.append(number)
            yield number

    stream = prefetched(items())
    assert next(stream) == 0
    wait_until("it runs ahead", lambda: len(made) >= 2, pause=0.001)
    assert len(made) <= 4  # ahead, and bounded
    assert [0, *stream] == list(range(50)) == made


def test_an_error_ahead_appears_in_its_place():
    def items():
        yield 1
        raise ValueError("broken")

    stream = prefetched(items())
    assert next(stream) == 1
    with pytest.raises(ValueError, match="broken"):
        next(stream)


def test_stopping_early_closes_what_was_read():
    closed = []

    def endless():
        try:
            while True:
                yield np.zeros(1)
        finally:
            closed.append(True)

    stream = prefetched(endless())
    next(stream)
    stream.close()
    assert closed == [True]


class Unreadable:
    """Something that fails before its first item."""

    def __init__(self, error):
        self.error = error

    def __iter__(self):
        raise self.error


@pytest.mark.parametrize("error", [OSError("cannot be opened"), KeyError("x")])
def test_what_cannot_be_begun_is_an_error_for_the_caller(error):
    with pytest.raises(type(error)):
        list(prefetched(Unreadable(error)))
    with pytest.raises(type(error)):
        list(ordered_map(len, Unreadable(error), workers=2))


def test_a_stop_iteration_that_is_no_end_is_no_end_of_items():
    with pytest.raises(RuntimeError):
        list(prefetched(Unreadable(StopIteration())))
