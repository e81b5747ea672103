"""The text of a request document, YAML or JSON, as plain data: mappings, lists, text, numbers.

Documents come from anybody who can write to the inbox, so reading one is bounded: in bytes, in depth, and in size once
YAML's aliases and merges are written out. YAML is read by ``core_yaml``. See ``animation_request`` and ``batch`` for
what the data must say.
"""

import codecs
import json
import re
from typing import Any

from libs.errors import InputError
from libs.files.garbage_collection import garbage_collection_paused
from libs.messages.printable import printable
from libs.requests.documents.core_yaml import (
    MAX_DEPTH,
    DocumentProblemError,
    load_core_yaml,
    path_of,
    stands_twice,
    values_of,
    whole_number,
)

MAX_DOCUMENT_BYTES = 1_000_000
_LONGEST_MESSAGE = 10_000

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_RICH_TEXT = rb"{\rtf"

_JSON_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:\n]')


class _RepeatedKeyError(ValueError):
    """A JSON object has one name twice."""


def load_document(document: bytes | str, *, source: str) -> Any:
    """The content of a YAML or JSON text.

    Args:
        document: the text: UTF-8, or UTF-16 or UTF-32 with a byte order mark, which Windows writes as "Unicode".
        source: where it came from, for messages.

    Raises:
        InputError: too large, in another encoding, neither YAML nor JSON, a name that stands twice, nested too deeply,
            or enormous once written out.
    """
    if len(document) > MAX_DOCUMENT_BYTES:
        raise InputError(f"{source}: a request document may have at most {MAX_DOCUMENT_BYTES} bytes")
    try:
        return _load_json_or_yaml(_decoded(document) if isinstance(document, bytes) else document)
    except DocumentProblemError as problem:
        raise InputError(f"{source}: {printable(str(problem), _LONGEST_MESSAGE)}") from None


def _decoded(document: bytes) -> str:
    if document.startswith(_RICH_TEXT):
        raise DocumentProblemError(
            "it is rich text (RTF), not plain text: save it again as plain text (in TextEdit: Format, Make Plain Text)"
        )
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if document.startswith(mark)), "utf-8")
    try:
        text = document.decode(encoding)
    except UnicodeDecodeError as error:
        line = document.count(b"\n", 0, error.start) + 1
        raise DocumentProblemError(
            f"it is not UTF-8 text (line {line}): save it again with the encoding UTF-8, which every text editor "
            "offers when it saves"
        ) from None
    if "\0" in text:
        raise DocumentProblemError(
            "it holds NUL characters, as UTF-16 text without a byte order mark does, or a file that is no text: save "
            "it again with the encoding UTF-8"
        )
    return text


def _load_json_or_yaml(text: str) -> Any:
    """JSON by its own parser: YAML's does not join the escaped surrogate pairs that JSON writers use."""
    try:
        with garbage_collection_paused():
            content = json.loads(text, object_pairs_hook=_object, parse_int=whole_number)
    except _RepeatedKeyError:
        raise DocumentProblemError(_repeated_json_keys(text)) from None
    except RecursionError:
        raise DocumentProblemError(f"it is nested more than {MAX_DEPTH} levels deep") from None
    except json.JSONDecodeError:
        return load_core_yaml(text)
    _require_modest_depth(content)
    return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise _RepeatedKeyError
    return mapping


def _require_modest_depth(content: Any) -> None:
    level, depth = [content], 0
    while level := [child for value in level for child in values_of(value)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise DocumentProblemError(f"it is nested more than {MAX_DEPTH} levels deep")


def _repeated_json_keys(text: str) -> str:
    """Which names stand twice in one object of the JSON ``text``, which is known to be JSON up to the first of them."""
    line = 1
    open_: list[dict[str, list[int]] | int] = []  # objects: name -> lines; lists: entries before this one
    names: list[str] = []
    word = ""
    problems = []
    for token in _JSON_TOKEN.findall(text):
        if token == "\n":
            line += 1
        elif token == "{":
            open_.append({})
            names.append("")
        elif token == "[":
            open_.append(0)
        elif token == "," and open_ and isinstance(open_[-1], int):
            open_[-1] += 1
        elif token in "}]" and open_:
            closed = open_.pop()
            if isinstance(closed, dict):
                names.pop()
                outer = iter(names)
                places = [entry if isinstance(entry, int) else next(outer) for entry in open_]
                problems += [
                    f"{path_of([*places, name])}: {stands_twice(lines)}"
                    for name, lines in closed.items()
                    if len(lines) > 1
                ]
        elif token == ":" and open_ and isinstance(entry := open_[-1], dict):
            names[-1] = word
            entry.setdefault(word, []).append(line)
        elif token[0] == '"':
            try:
                word = json.loads(token)
            except ValueError:  # what follows the repeated name need not be JSON
                break
    return "; ".join(problems[:20])
