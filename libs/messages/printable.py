"""Text from files and names of others, made fit to be printed: what a terminal would obey or not show is escaped.

Everything the command line prints goes through here (``libs.command_line.console.terminal``).
"""

import re
import shlex
import unicodedata

_LONGEST = 300

_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Control and format characters, half surrogate pairs, private and unassigned ones, separators of lines; spaces of any
script are left alone."""

_ORDINARY = re.compile(r"[\x20-\x7e]*")


def printable(text: str, longest: int = _LONGEST) -> str:
    """``text`` on one line: control characters and half surrogate pairs escaped, cut after ``longest`` characters."""
    return escaped(text if len(text) <= longest else f"{text[: longest - 1]}…")


def escaped(text: str) -> str:
    """``text`` on one line, whole: a line feed is shown as ``\\n``, an escape character as ``\\x1b``."""
    return text if _ORDINARY.fullmatch(text) else "".join(map(_visible, text))


def escaped_lines(text: str) -> str:
    """``text`` whole, its lines kept: for messages that have several."""
    return "\n".join(map(escaped, text.split("\n")))


def _visible(character: str) -> str:
    if unicodedata.category(character) in _HIDDEN_CATEGORIES:
        return character.encode("unicode_escape").decode()
    return character


def shell_word(text: str) -> str:
    """``text``, a file's name, as a shell takes it: in quotes where it needs them."""
    if _shows_itself(text):
        return shlex.quote(text)
    return "$'" + "".join(map(_in_dollar_quotes, text)) + "'"


def _shows_itself(text: str) -> bool:
    return not any(unicodedata.category(character) in _HIDDEN_CATEGORIES for character in text)


def _in_dollar_quotes(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if _shows_itself(character):
        return character
    is_byte = "\udc80" <= character <= "\udcff"  # of a name that is no UTF-8
    return "".join(
        f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape" if is_byte else "surrogatepass")
    )
