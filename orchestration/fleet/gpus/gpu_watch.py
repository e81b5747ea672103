"""A worker whose GPU does not answer takes no runs, so that they go to other GPUs, until its GPU answers again.

This is the main process's part, which reads the queue: it stops reading when one of its processes says so, asks the GPU
in fresh processes at growing intervals (``gpu_check``), and reads on. See ``device_loss`` for noticing a loss,
``orchestration.fleet.working.run_gate`` for what a process does with the run it holds.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

PAUSES_SECONDS = (2.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
"""Before each probe since the last clip was made, the last one for ever.

After most losses all that is needed is a new process. It is forked within the first pause: not while this process
begins to ask, or the new one would hold the ends of its pipes.
"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trouble:
    """Why a worker takes no runs."""

    reason: str
    """What the GPU answered last."""
    since: float
    """Seconds since the epoch."""


class GpuWatch:
    """Whether this worker may take runs; ``troubles`` counts losses and silent looks since the last clip was made."""

    def __init__(
        self,
        probe: Callable[[], str | None],
        read_on: Callable[[], None],
        pauses: tuple[float, ...] = PAUSES_SECONDS,
        wait: Callable[[float], None] = time.sleep,
        subject: str = "GPU",
    ) -> None:
        """``probe`` asks the GPU, or what ``subject`` names; ``read_on`` returns once the queue is read again."""
        self.subject = subject
        self.troubles = 0
        self._probe = probe
        self._read_on = read_on
        self._pauses = pauses
        self._wait = wait
        self._trouble: Trouble | None = None
        self._lock = threading.Lock()

    @property
    def trouble(self) -> Trouble | None:
        """Why no runs are taken now; None while they are."""
        return self._trouble

    def report_loss(self, reason: str) -> None:
        """Start a thread that probes the GPU until it answers; returns at once. The caller stops reading the queue."""
        with self._lock:
            self.troubles += 1
            known = self._trouble
            self._trouble = Trouble(reason, known.since if known else time.time())
        logger.error(
            "The %s of this worker does not work (%s): it takes no runs until the %s answers",
            self.subject,
            reason,
            self.subject,
        )
        if known is None:
            threading.Thread(target=self._wait_for_gpu, name="gpu-watch", daemon=True).start()

    def report_success(self) -> None:
        """Forget earlier failures: a clip was made."""
        self.troubles = 0

    def _wait_for_gpu(self) -> None:
        while True:
            self._wait(self._pauses[min(max(self.troubles, 1), len(self._pauses)) - 1])
            losses = self.troubles
            reason = self._probe()
            if reason is not None:
                with self._lock:
                    self.troubles += 1
                    self._trouble = self._trouble and replace(self._trouble, reason=reason)
                logger.error("The %s of this worker still does not answer: %s", self.subject, reason)
            elif self.troubles <= losses:
                self._read_on()
                with self._lock:
                    if self.troubles <= losses:  # no other loss was reported meanwhile
                        self._trouble = None
                        logger.warning("The %s of this worker answers again: it takes runs", self.subject)
                        return
