"""Checks that ``.env`` can be read, every line of it.

See ``settings`` for what its values mean.
"""

from pathlib import Path

from dotenv.parser import parse_stream

from libs.errors import SettingsError


def require_readable(dotenv: Path) -> None:
    """Check that ``dotenv`` can be read if it exists.

    The library leaves out a line that it cannot read, so what that should have set would silently be the default: the
    artifacts would go to another place.

    Raises:
        SettingsError: it cannot be read, is no UTF-8, or one of its lines is no ``NAME=value``; never shows a value.
    """
    if not dotenv.is_file():
        return
    try:
        with dotenv.open(encoding="utf-8-sig") as text:
            wrong = [binding.original.line for binding in parse_stream(text) if binding.error]
    except UnicodeDecodeError:
        raise SettingsError(f"{dotenv} is not UTF-8 text: save it as UTF-8") from None
    except OSError as error:
        raise SettingsError(f"{dotenv} cannot be read: {error.strerror}") from None
    if wrong:
        raise SettingsError(f"{dotenv}, line {wrong[0]}: expected NAME=value, with quotes closed")
