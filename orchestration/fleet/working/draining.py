"""A worker that is drained takes no more runs, finishes what it executes, and ends.

See ``orchestration.fleet.drain`` for asking for it.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Collection

DRAINED_STATUS = 3
"""Exit status of a drained worker: ``make fleet`` does not start it again."""

QUIET_POLLS = 3
POLL_SECONDS = 1.0
"""A message may be on its way from Redis when the worker stops reading: idle means idle at several looks in a row."""

logger = logging.getLogger(__name__)


class Draining:
    """Whether this worker is being drained; ends the process once it is idle."""

    def __init__(
        self,
        runs: Callable[[], Collection[str]],
        end: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGTERM),
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """``runs`` returns what is in progress; ``end`` ends the worker, which no longer reads its queue."""
        self.begun = False
        self._stay = False
        self._runs = runs
        self._end = end
        self._wait = wait

    def begin(self, *, stay: bool) -> None:
        """Begin to drain; the caller stops reading. With ``stay`` the idle worker waits to be stopped."""
        self._stay = stay
        if self.begun:
            return
        self.begun = True
        logger.warning("This worker is drained: it takes no more runs")
        threading.Thread(target=self._finish, name="draining", daemon=True).start()

    @property
    def stays(self) -> bool:
        """True where the drained worker waits to be stopped."""
        return self.begun and self._stay

    @property
    def over(self) -> bool:
        """True once the worker ends because it was drained."""
        return self.begun and not self._stay

    def _finish(self) -> None:
        quiet = 0
        while quiet < QUIET_POLLS:
            self._wait(POLL_SECONDS)
            quiet = 0 if self._runs() else quiet + 1
        if self._stay:
            logger.warning("This worker is drained and idle: stop it")
        else:
            logger.warning("This worker is drained and ends")
            self._end()
