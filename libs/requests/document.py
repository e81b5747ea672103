"""The text of a request document, YAML or JSON, as plain data: mappings, lists, text, numbers.

Documents come from anybody who can write to the inbox, so reading one is bounded: in bytes, in depth, and in size once
YAML's aliases and merges are written out. What does not belong here: what the data must say (``animation_request``,
``batch``).
"""

import json
from typing import Any

import yaml

from libs.errors import InputError

MAX_DOCUMENT_BYTES = 1_000_000

_MAX_DEPTH = 20
_MAX_VALUES = 300_000
"""Twice what 10,000 requests of a few fields need."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where PyYAML has libyaml


def load_document(document: bytes | str, *, source: str) -> Any:
    """The content of a YAML or JSON text.

    Args:
        document: the text, UTF-8.
        source: where it came from, for messages.

    Raises:
        InputError: too large, not UTF-8, neither YAML nor JSON, nested too deeply, or enormous once written out.
    """
    if len(document) > MAX_DOCUMENT_BYTES:
        raise InputError(f"{source}: a request document may have at most {MAX_DOCUMENT_BYTES} bytes")
    try:
        text = document.decode("utf-8-sig") if isinstance(document, bytes) else document
        return _load_json_or_yaml(text)
    except UnicodeDecodeError:
        raise InputError(f"{source}: is not UTF-8 text") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{source}: is neither YAML nor JSON: {error}") from None


def _load_json_or_yaml(text: str) -> Any:
    """JSON by its own parser: YAML's does not join the escaped surrogate pairs that JSON writers use."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return _load_yaml(text)


def _load_yaml(text: str) -> Any:
    _require_modest_depth(text)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count_values(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _require_modest_depth(text: str) -> None:
    """Look at the events first, which needs no stack: libyaml's composer overflows the stack on deep nesting."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise ValueError(f"it is nested more than {_MAX_DEPTH} levels deep")


def _count_values(node: yaml.Node, counted: dict[int, int]) -> int:
    """How many values ``node`` has once aliases are written out; each shared node is visited once."""
    identity = id(node)
    if identity in counted:
        if not counted[identity]:
            raise ValueError("an alias stands inside what it refers to")
        return counted[identity]
    counted[identity] = 0
    total = 1
    if isinstance(node, yaml.CollectionNode):
        for child in node.value:
            parts = child if isinstance(child, tuple) else (child,)
            total += sum(_count_values(part, counted) for part in parts)
    if total > _MAX_VALUES:
        raise ValueError(f"it has more than {_MAX_VALUES} values once its aliases are written out")
    counted[identity] = total
    return total
