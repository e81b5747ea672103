"""Checks whether a document is named for the request in it. Browsers and file managers change names of copies.

``a (1).yaml``, ``a - Copy.yaml`` and ``Kopie von a.yaml`` are all named for ``a``: the id inside counts.
"""

import re

_COPY = "copy|kopie|copie|copia|cópia|kopia|kopi|kópia|копия|копія|副本|拷贝|コピー|복사본"
_SUFFIXES = re.compile(
    r"\s*\(\d{1,4}\)"  # browsers, Windows
    r"|\s+\d{1,4}"  # macOS
    rf"|(\s+[-–—]\s*|\s+|\s*の)({_COPY})(\s*\d{{1,4}})?"  # Windows, macOS
    rf"|\s*\((another |\d+\w* |další |altra |autre )?({_COPY})(\s*\d{{1,4}})?\)"  # Linux
    r"|\.(yaml|yml|json)",  # where the system hides it and somebody adds it again
    re.IGNORECASE,
)
_PREFIXES = re.compile(
    r"(copy of|kopie von|kopie van|copie de|copia de|copia di|cópia de|kopia|копия|копія)\s+", re.IGNORECASE
)


def is_named_for(stem: str, name: str) -> bool:
    """True when a document called ``stem`` (without its suffix) is one, or a copy of one, for the request ``name``."""
    stem = stem.casefold()
    places = (at.start() for at in re.finditer(f"(?={re.escape(name)})", stem))
    return any(_is_copy(stem[:place], stem[place + len(name) :]) for place in places)


def _is_copy(before: str, after: str) -> bool:
    """True when what stands before and after a name was put there by a machine."""
    while before and (match := _PREFIXES.match(before)):
        before = before[match.end() :]
    while after and (match := _SUFFIXES.match(after)):
        after = after[match.end() :]
    return not before and not after
