import threading

import pytest

from libs.pose.parallel import ordered_map, worker_count


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


def test_there_is_at_least_one_worker():
    assert worker_count() >= 1
