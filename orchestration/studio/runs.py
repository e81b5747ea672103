"""Dagster's runs for the studio: one instance, opened when it is first needed, and again after it did not answer."""

import threading
import time
import warnings

from libs.command_line.requests.runs import RunsOrReason
from orchestration.requests.control import InstanceRuns

_ASK_AGAIN_AFTER = 5.0
"""Seconds for which an answer to "is the database there?" holds: each page asks several times."""


class InstanceOfRuns:
    """The instance of ``DAGSTER_HOME``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: RunsOrReason | None = None
        self._asked = 0.0

    def open(self) -> RunsOrReason:
        """The runs, or why Dagster cannot be asked."""
        with self._lock:
            if self._found is None or time.monotonic() - self._asked > _ASK_AGAIN_AFTER:
                self._found, self._asked = self._ask(), time.monotonic()
            return self._found

    def _ask(self) -> RunsOrReason:
        import dagster as dg  # noqa: PLC0415 - takes a second, and the first page may need none of it

        warnings.simplefilter("ignore")
        try:
            known = self._found.runs if self._found else None
            runs = known if isinstance(known, InstanceRuns) else InstanceRuns(dg.DagsterInstance.get())
            runs.require_database()
        except Exception as error:  # a database that is away, a configuration that cannot be read
            return RunsOrReason(None, f"its database does not answer ({(str(error).splitlines() or [''])[0][:200]})")
        return RunsOrReason(runs)
