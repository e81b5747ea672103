"""Calls made by a worker thread while the caller goes on: writing what is finished, while the next is computed.

See ``libs.pose.networks.prefetch`` for reading ahead.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import ParamSpec, Self

Parameters = ParamSpec("Parameters")


class WorkerThread:
    """Context manager that makes calls in order, one at a time, at most one behind the caller.

    An error of a call is raised where it is waited for, the next one is asked for, or the block ends; it is dropped
    only if the block ends with an error of its own.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._pending: Future[object] | None = None

    def call(self, function: Callable[Parameters, object], *args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        """Have ``function`` called, once the call before is done: what waits never piles up."""
        self.wait()
        self._pending = self._thread.submit(function, *args, **kwargs)

    def wait(self) -> None:
        """Wait until all calls are done."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the last call."""
        self._thread.shutdown(wait=True)
        if error is None:
            self.wait()
