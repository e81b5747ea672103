"""Lengths of time as people type them: ``90s``, ``30m``, ``24h``, ``7d``."""

import re
from datetime import timedelta

import typer

from libs.settings.values import LONGEST_AGE_DAYS

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LONGEST = timedelta(days=LONGEST_AGE_DAYS)


def parse_duration(text: str) -> timedelta:
    """The length of time that ``text`` says.

    Raises:
        typer.BadParameter: anything but a whole number and one of s, m, h, d; or more than a century.
    """
    match = re.fullmatch(r"(\d{1,6})([smhd])", text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a length of time: write a number and s, m, h or d, such as 24h")
    length = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if length > _LONGEST:
        raise typer.BadParameter(f"{text!r} is longer than {_LONGEST.days}d")
    return length
