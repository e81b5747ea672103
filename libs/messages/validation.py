"""What pydantic found wrong with a value, in words for people who know no Python."""

import json
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

_PREFIXES = ("Value error, ", "Assertion failed, ")

_WHOLE_NUMBER = "must be a whole number, written in digits alone and without quotes"
_NUMBER = "must be a number, written in digits and without quotes"
_TRUE_OR_FALSE = "must be true or false, without quotes"
_MAPPING = "must be a mapping of fields, as in {name: value}"
_LIST = "must be a list, as in [one, two]"


def _number(limit: Any) -> str:
    return str(int(limit)) if isinstance(limit, float) and limit.is_integer() else str(limit)


def _at_least(context: Mapping[str, Any]) -> str:
    count = context["min_length"]
    return "must not be empty" if count == 1 else f"must have at least {count}"


_MESSAGES: Mapping[str, str | Callable[[Mapping[str, Any]], str]] = MappingProxyType(
    {
        "missing": "is required",
        "extra_forbidden": "is unknown",
        "invalid_key": "a field's name must be text",
        "string_type": "must be text: put it into quotes",
        "string_unicode": "holds half a character (a surrogate without its other half)",
        "string_too_short": _at_least,
        "string_too_long": lambda context: f"may have at most {context['max_length']} characters",
        "string_pattern_mismatch": "has characters that are not allowed there",
        "literal_error": lambda context: f"must be {context['expected']}",
        "enum": lambda context: f"must be {context['expected']}",
        "int_type": _WHOLE_NUMBER,
        "int_parsing": "must be a whole number",
        "int_parsing_size": "has too many digits",
        "int_from_float": "must be a whole number",
        "float_type": _NUMBER,
        "float_parsing": "must be a number",
        "finite_number": "must be a finite number",
        "bool_type": _TRUE_OR_FALSE,
        "bool_parsing": "must be true or false",
        "greater_than": lambda context: f"must be more than {_number(context['gt'])}",
        "greater_than_equal": lambda context: f"must be at least {_number(context['ge'])}",
        "less_than": lambda context: f"must be less than {_number(context['lt'])}",
        "less_than_equal": lambda context: f"may be at most {_number(context['le'])}",
        "model_type": _MAPPING,
        "model_attributes_type": _MAPPING,
        "dict_type": _MAPPING,
        "mapping_type": _MAPPING,
        "list_type": _LIST,
        "tuple_type": _LIST,
        "too_short": _at_least,
        "too_long": lambda context: f"may have at most {context['max_length']}",
        "path_type": "must be the path of a file or folder",
        "json_invalid": "is no JSON",
        "json_type": "is no JSON",
        "datetime_type": "must be a date and time",
        "datetime_parsing": "must be a date and time",
        "datetime_from_date_parsing": "must be a date and time",
        "recursion_loop": "contains itself",
    }
)


def what_was_expected(problem: Mapping[str, Any]) -> str:
    """What one of ``ValidationError.errors()`` wants, to follow the field's name."""
    kind = problem["type"]
    if kind in {"value_error", "assertion_error"}:  # a validator of this project: its own words
        message = str(problem["msg"])
        for prefix in _PREFIXES:
            message = message.removeprefix(prefix)
        return message
    message_or_function = _MESSAGES.get(kind, "cannot be used")
    return message_or_function if isinstance(message_or_function, str) else message_or_function(problem.get("ctx", {}))


def field_path(location: tuple[int | str, ...]) -> str:
    """The name of the field at ``location``; entries of lists count from 1."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f", entry {part + 1}"
        elif part != "[key]":
            path += f".{part}" if path else part
    return path


def shown(value: Any) -> str:
    """``value`` as a message shows it; what is large is named, not written out."""
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    if isinstance(value, float) and not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinity" if value > 0 else "-infinity"
    if isinstance(value, str):
        return json.dumps(value[:120], ensure_ascii=False)[:120]
    return (str(value).lower() if isinstance(value, bool) else str(value))[:120]
