"""Text from files of others, made fit to be printed: what cannot be seen is escaped, what is long is cut."""

_LONGEST = 300


def printable(text: str, longest: int = _LONGEST) -> str:
    """``text`` on one line: control characters and half surrogate pairs escaped, cut after ``longest`` characters."""
    cut = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return cut if cut.isprintable() else "".join(map(_visible, cut))


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()
