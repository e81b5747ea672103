"""YAML by the core schema of YAML 1.2, as plain data: mappings (their keys are text), lists, text, numbers, booleans.

Read from libyaml's events, in one pass and without recursion, so that time and memory follow the size of the text. A
key that appears twice, a tag, and anything else that would be misread is an error that names field
and line. Merge keys (``<<``) work as in YAML 1.1.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_DEPTH = 20
MAX_VALUES = 300_000
"""Twice what 10,000 requests of a few fields need."""
_MAX_DIGITS = 100
_MAX_PROBLEMS = 20

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where PyYAML has libyaml

_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{f"{sign}{word}": float(f"{sign}inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
}
_WHOLE = re.compile(r"[-+]?([0-9]+)")
_BASED = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+")
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NUMBER_BEGINS = frozenset("+-.0123456789")

_MERGE = "<<"

_HINTS = {
    "mapping values are not allowed in this context": "a value with ': ' in it must be in quotes, and fields of "
    "one request begin in the same column",
    "could not find expected ':'": "a field is written `name: value`, with a blank after the colon; what goes on "
    "in the next line is indented",
    "found character that cannot start any token": "a line is indented with blanks, never with a tab; a value that "
    "begins with @, ` or % must be in quotes",
    "found a tab character that violates indentation": "a line is indented with blanks, never with a tab",
    "found unexpected end of stream": "a quote or a bracket is not closed",
    "did not find expected key": "fields of one request begin in the same column; a value that begins with a quote "
    "ends with it",
    "did not find expected ',' or '}'": "a bracket is not closed, or a comma is missing",
    "did not find expected ',' or ']'": "a bracket is not closed, or a comma is missing",
}


class DocumentProblemError(ValueError):
    """What is wrong with a document, in words for the person who wrote it."""


@dataclass(frozen=True)
class UnclearNumber:
    """Something written like a number that is taken for none: whoever wants a number, or text, says so.

    ``text`` is what was written, ``why`` what is wrong with it as a number.
    """

    text: str
    why: str

    def __str__(self) -> str:
        return self.text


def whole_number(text: str) -> int | UnclearNumber:
    """The decimal number ``text``; digits with an optional sign."""
    digits = text.lstrip("+-")
    if len(digits) > _MAX_DIGITS:
        return UnclearNumber(text, f"is far too large: it has {len(digits)} digits")
    if len(digits) > 1 and digits.startswith("0"):
        return UnclearNumber(text, f"{text} begins with a zero, which some read as octal: write it without")
    return int(text)


def load_core_yaml(text: str) -> Any:
    """The content of a YAML text that holds one document; None when it is empty.

    Raises:
        DocumentProblemError: what is wrong, and where.
    """
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=_Loader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        raise DocumentProblemError(f"it is neither YAML nor JSON: {_explained(error)}") from None
    except yaml.reader.ReaderError as error:
        character = error.character if isinstance(error.character, int) else ord(error.character[:1] or "\0")
        raise DocumentProblemError(
            f"it is neither YAML nor JSON: the character U+{character:04X} is not allowed in it"
        ) from None
    except UnicodeEncodeError:
        raise DocumentProblemError("it holds half a character (a surrogate without its other half)") from None
    return builder.result()


@dataclass
class _Open:
    """A mapping or list whose end has not come yet."""

    value: Any
    anchor: str | None
    values: int = 1
    key: str | None = None
    is_merge: bool = False
    lines: dict[str, list[int]] = field(default_factory=dict)
    merged: list[dict[str, Any]] = field(default_factory=list)

    @property
    def awaits_key(self) -> bool:
        return isinstance(self.value, dict) and self.key is None

    @property
    def place(self) -> str | int | None:
        return self.key if isinstance(self.value, dict) else len(self.value)


class _Builder:
    """Takes parsing events and makes plain data of them."""

    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int] | None] = {}
        self._problems: list[str] = []
        self._documents = 0
        self._result: Any = None

    def take(self, event: yaml.Event) -> None:
        """Go on with the next event."""
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._begin(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._end()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise DocumentProblemError(
                    f"line {_line(event)}: a second document begins; several requests are written as one list"
                )

    def result(self) -> Any:
        """The content, once all events were taken.

        Raises:
            DocumentProblemError: something was wrong with it.
        """
        if self._problems:
            more = len(self._problems) - _MAX_PROBLEMS
            raise DocumentProblemError(
                "; ".join(self._problems[:_MAX_PROBLEMS]) + (f"; and {more} more problems" if more > 0 else "")
            )
        return self._result

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        is_plain = event.tag is None and event.implicit[0]
        if self._open and self._open[-1].awaits_key:
            self._key(event, event.value, is_plain)
            value: Any = event.value
        else:
            self._refuse_tag(event)
            value = _plain_value(event.value) if is_plain else event.value
            self._add(value, 1)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, 1)

    def _key(self, event: yaml.Event, key: str, is_plain: bool) -> None:
        top = self._open[-1]
        top.key, top.is_merge = key, is_plain and key == _MERGE
        top.lines.setdefault(key, []).append(_line(event))
        self._count(1)
        if isinstance(event, yaml.NodeEvent) and not isinstance(event, yaml.AliasEvent):
            self._refuse_tag(event)

    def _begin(self, event: yaml.CollectionStartEvent) -> None:
        if self._open and self._open[-1].awaits_key:
            raise DocumentProblemError(f"line {_line(event)}: a name before ':' must be text, not a list or a mapping")
        if len(self._open) == MAX_DEPTH:
            raise DocumentProblemError(f"it is nested more than {MAX_DEPTH} levels deep")
        self._refuse_tag(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._open.append(_Open({} if isinstance(event, yaml.MappingStartEvent) else [], event.anchor))

    def _end(self) -> None:
        closed = self._open[-1]
        closed.key = None
        for key, lines in closed.lines.items():
            if len(lines) > 1:
                self._problems.append(f"{self._path(key)}: {stands_twice(lines)}")
        if closed.merged:
            own = dict(closed.value)
            closed.value.clear()
            for mapping in reversed(closed.merged):  # the first of them wins
                closed.value.update(mapping)
            closed.value.update(own)
        self._open.pop()
        if closed.anchor is not None:
            self._anchors[closed.anchor] = (closed.value, closed.values)
        self._add(closed.value, closed.values)

    def _alias(self, event: yaml.AliasEvent) -> None:
        if event.anchor not in self._anchors:
            raise DocumentProblemError(
                f"line {_line(event)}: *{event.anchor} refers to nothing: there is no &{event.anchor} before it; "
                "a value that begins with * must be in quotes"
            )
        anchored = self._anchors[event.anchor]
        if anchored is None:
            raise DocumentProblemError(f"line {_line(event)}: an alias refers to a value that contains it")
        value, values = anchored
        if self._open and self._open[-1].awaits_key:
            if not isinstance(value, str):
                raise DocumentProblemError(f"line {_line(event)}: a name before ':' must be text")
            self._key(event, value, is_plain=False)
        else:
            self._add(value, values)

    def _add(self, value: Any, values: int) -> None:
        """Put a finished value, of so many ``values`` with aliases written out, where it belongs."""
        if not self._open:
            self._result = value
            return
        self._count(values)
        top = self._open[-1]
        if isinstance(top.value, list):
            top.value.append(value)
            return
        assert top.key is not None
        if not top.is_merge:
            top.value[top.key] = value
        elif isinstance(value, dict):
            top.merged.append(value)
        elif isinstance(value, list) and all(isinstance(part, dict) for part in value):
            top.merged.extend(value)
        else:
            self._problems.append(f"{self._path()}: takes over the fields of a mapping, such as *common")
        top.key = None

    def _count(self, values: int) -> None:
        top = self._open[-1]
        top.values += values
        if top.values > MAX_VALUES:
            raise DocumentProblemError(f"it has more than {MAX_VALUES} values once its aliases are written out")

    def _refuse_tag(self, event: yaml.NodeEvent) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None:
            shown = tag.replace("tag:yaml.org,2002:", "!!")
            self._problems.append(
                f"{self._path() or f'line {_line(event)}'}: the tag {shown[:60]} has no meaning here: "
                "write the value alone, text in quotes"
            )

    def _path(self, *last: str) -> str:
        places = [entry.place for entry in self._open if entry.place is not None and entry is not self._open[-1]]
        if self._open and not last:
            places += [place] if (place := self._open[-1].place) is not None else []
        return path_of([*places, *last])


def path_of(places: list[Any]) -> str:
    """The names of ``places``, outermost first, joined; numbers are those of a list's entries, from 0."""
    if places and isinstance(places[0], int):
        rest = path_of(places[1:])
        return f"request {places[0] + 1}" + (f": {rest}" if rest else "")
    path = ""
    for place in places:
        path += f", entry {place + 1}" if isinstance(place, int) else f".{place}"[:80] if path else place[:80]
    return path


def stands_twice(lines: list[int]) -> str:
    """How to say that a name stands more than once in one mapping."""
    times = "twice" if len(lines) == 2 else f"{len(lines)} times"
    shown = [str(line) for line in lines[:10]]
    named = f"in lines {', '.join(shown[:-1])} and {shown[-1]}" if lines[0] != lines[-1] else f"in line {lines[0]}"
    return f"stands there {times}, {named}; keep one of them"


def _plain_value(text: str) -> Any:
    """What a scalar without quotes means."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_BEGINS:
        return text
    if _WHOLE.fullmatch(text):
        return whole_number(text)
    if _BASED.fullmatch(text):
        return (
            int(text, 0)
            if len(text) <= _MAX_DIGITS
            else UnclearNumber(text, f"is far too large: it has {len(text) - 2} digits")
        )
    return float(text) if _DECIMAL.fullmatch(text) else text


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _explained(error: yaml.MarkedYAMLError) -> str:
    problem = str(error.problem or "it cannot be read")
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    hint = _HINTS.get(problem)
    return f"{place}{problem}" + (f" ({hint})" if hint else "")


def values_of(content: Any) -> Iterator[Any]:
    """The values directly in ``content``; none if it is neither mapping nor list."""
    if isinstance(content, dict):
        yield from content.values()
    elif isinstance(content, list):
        yield from content
