"""Bounded streams over threads: for work that releases the interpreter's lock (OpenCV, Pillow, decoders, networks)."""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, Queue
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST_WORKERS = 16
_MOST_BYTES = 2**30
"""Of all items that :func:`ordered_map` holds: pictures of a camera have 70 MB and more."""


def worker_count(item_bytes: int = 0) -> int:
    """Threads for picture work: the CPUs this process may use, at most 16, and fewer where an item is large.

    Two items for each of them stay below 1 GiB together, or there is one thread.
    """
    fitting = _MOST_BYTES // (2 * item_bytes) if item_bytes else _MOST_WORKERS
    return max(1, min(_MOST_WORKERS, len(os.sched_getaffinity(0)), fitting))


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


def prefetched(items: Iterable[Item], ahead: int = 1) -> Generator[Item, None, None]:
    """Yield the items in order; another thread makes ``ahead`` of them while the caller is busy.

    At most ``ahead + 2`` items are held at a time. An error appears where the item would have. ``items`` is advanced,
    and closed when the caller stops early, by the other thread only.
    """
    queue: Queue[tuple[Item | None, BaseException | None]] = Queue(ahead)
    stopped = threading.Event()
    end = StopIteration()

    def produce() -> None:
        iterator: Iterator[Item] | None = None
        try:
            iterator = iter(items)
            for item in iterator:
                queue.put((item, None))
                if stopped.is_set():
                    return
            queue.put((None, end))
        except BaseException as error:  # handed to the caller, who raises it
            queue.put((None, error))
        finally:
            if iterator is not None and hasattr(iterator, "close"):
                iterator.close()

    thread = threading.Thread(target=produce, name="pose-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = queue.get()
            if error is end:
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]  # None only beside an error
    finally:
        stopped.set()
        while thread.is_alive():  # it may wait for room
            try:
                queue.get_nowait()
            except Empty:
                thread.join(0.01)
