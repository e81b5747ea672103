"""Calls in the background: in order, one behind the caller, no error lost."""

import threading

import pytest

from libs.worker_thread import WorkerThread
from tests.waiting import HANG_SECONDS


def test_the_caller_goes_on_and_the_block_waits() -> None:
    may_go_on, done = threading.Event(), []

    def slow() -> None:
        assert may_go_on.wait(HANG_SECONDS)
        done.append("slow")

    with WorkerThread("test") as background:
        background.call(slow)
        assert done == []  # the caller is here already
        may_go_on.set()
    assert done == ["slow"]


def test_calls_keep_their_order_and_never_pile_up() -> None:
    running, most, order = 0, 0, []

    def call(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        order.append(number)
        running -= 1

    with WorkerThread("test") as background:
        for number in range(20):
            background.call(call, number)
            assert len(order) >= number  # all but the latest are done
    assert order == list(range(20)) and most == 1


def _fail(*_args: object) -> None:
    raise OSError("the disk is full")


@pytest.mark.parametrize("where", ["next call", "wait", "end"])
def test_an_error_is_raised_where_the_caller_is(where: str) -> None:
    later = []
    with pytest.raises(OSError, match="disk is full"), WorkerThread("test") as background:
        background.call(_fail)
        if where == "next call":
            background.call(later.append, 1)
        if where == "wait":
            background.wait()
            later.append(1)
    assert later == []


def test_the_blocks_own_error_wins() -> None:
    with pytest.raises(KeyError), WorkerThread("test") as background:
        background.call(_fail)
        raise KeyError("of the block")
