"""A bounded, ordered map over threads: for work that releases the interpreter's lock (OpenCV, Pillow).

What does not belong here: what is computed.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST_WORKERS = 16


def worker_count() -> int:
    """Threads for picture work: the CPUs this process may use, at most 16."""
    return max(1, min(_MOST_WORKERS, len(os.sched_getaffinity(0))))


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None
) -> Iterator[Result]:
    """``map(function, items)`` computed ahead by threads; at most ``2 * workers`` items are held at a time.

    ``items`` is only ever advanced by the thread that asks for results, so any generator will do.
    """
    count = workers or worker_count()
    if count == 1:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(count, thread_name_prefix="pose") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 2 * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
