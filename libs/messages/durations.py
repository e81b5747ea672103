"""Lengths of time in words for people: ``3 min``, ``30 days``.

See ``libs.command_line.console.durations`` for reading them.
"""

from datetime import timedelta

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def show_duration(length: timedelta | float) -> str:
    """``length`` (of seconds, where it is a number) in its largest units: ``41 s``, ``3 min``, ``2 h 5 min``."""
    seconds = length.total_seconds() if isinstance(length, timedelta) else length
    if seconds < 0:
        return f"-{show_duration(-seconds)}"
    whole = round(seconds)
    if whole < 2 * _MINUTE:
        return f"{whole} s"
    if whole < 2 * _HOUR:
        return f"{round(whole / _MINUTE)} min"
    if whole < 2 * _DAY:
        hours, minutes = divmod(round(whole / _MINUTE), 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(round(whole / _HOUR), 24)
    return f"{days} days {hours} h" if hours else f"{days} days"
