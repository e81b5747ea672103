"""The output of ``dagster dev`` without what its daemon says when nothing happens.

Every sensor logs two lines a tick, so that what matters scrolls away. See ``orchestration.local_ui`` for its use.
"""

import re
import time
from collections.abc import Callable, Iterable

_IDLE = re.compile(
    r"Checking for new runs for (sensor|schedule)"
    r"|Sensor \w+ skipped: (nothing new|0 new or changed|No launch was lost|Skip function returned)"
    r"|No new tick times to evaluate|Not checking for any runs since no"
    r"|No cursor for event type|SupersessionWarning|return callback\(\*args, \*\*kwargs\)"
    r"|Found a dagster instance configuration value"
)
_PREFIX = re.compile(r"^(\x1b\[\d+m)*\d{4}-\d\d-\d\d (?P<clock>\d\d:\d\d:\d\d) ")

IDLE_LINE_SECONDS = 60.0


def quiet_lines(lines: Iterable[str], clock: Callable[[], float] = time.monotonic) -> Iterable[str]:
    """``lines`` but those that say that nothing happened; instead of a minute of those, one line.

    Args:
        lines: as ``dagster dev`` prints them, with their line ends.
        clock: seconds; replaced by tests.
    """
    said = clock()
    for line in lines:
        if not _IDLE.search(line):
            said = clock()
            yield line
        elif clock() - said >= IDLE_LINE_SECONDS:
            said = clock()
            seen = _PREFIX.match(line)
            yield f"{seen['clock'] if seen else ''} nothing new: the inbox and the queue are watched\n".lstrip()
