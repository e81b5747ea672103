"""The form of a request, generated from the request model: whatever field it has, the page has."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from libs.requests.documents.animation_request import AnimationRequest

FIRST = ("prompt", "model", "preset", "quality", "mode", "face", "size", "start", "duration", "trim", "person", "hold")
"""Fields that are shown at once, in this order, where the model has them; the others wait behind *more*."""

_ELSEWHERE = frozenset({"id", "reference", "driver"})
_LONG_TEXT = 300


@dataclass(frozen=True)
class FormField:
    """One field of the form.

    Attributes:
        name: of the field in a request.
        kind: ``choice``, ``switch``, ``integer``, ``number``, ``text``, ``long text``, ``size``, ``mixed`` (a word, a
            number or a list) or ``json``.
        help: what the request model says of it.
        choices: of a choice; the first is empty where the field may be left out.
        default: what holds when nothing is chosen; empty where that follows from the model variant.
        minimum, maximum: of numbers.
        longest: characters of a text.
    """

    name: str
    kind: str
    help: str
    choices: tuple[str, ...] = ()
    default: Any = ""
    minimum: float | None = None
    maximum: float | None = None
    longest: int | None = None


def form_fields(models: list[str], default_model: str) -> tuple[list[FormField], list[FormField]]:
    """The fields shown at once, and those behind *more*.

    Args:
        models: the model variants to choose from.
        default_model: what a request means that names none; where it cannot be chosen, one of the others must be.
    """
    schema = AnimationRequest.model_json_schema()
    fields = {
        name: _field(name, each, schema.get("$defs", {}))
        for name, each in schema["properties"].items()
        if name not in _ELSEWHERE
    }
    if "model" in fields:
        fields["model"] = replace(
            fields["model"], kind="choice", choices=(*([""] if default_model in models else []), *models)
        )
    first = [fields.pop(name) for name in FIRST if name in fields]
    return first, list(fields.values())


def told_apart(fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of a request that say something, and those that everybody has."""
    always = ("reference", "driver", "model", "seed")
    chosen: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, value in fields.items():
        known = AnimationRequest.model_fields.get(name)
        if name == "id" or value in (None, ""):
            continue
        is_usual = known is not None and (known.default == value or known.default is None) and name != "size"
        (others if is_usual and name not in always else chosen)[name] = value
    return chosen, others


def _field(name: str, schema: dict[str, Any], definitions: dict[str, Any]) -> FormField:
    parts = [_resolved(part, definitions) for part in schema.get("anyOf", [schema])]
    may_be_left_out = any(part.get("type") == "null" for part in parts)
    given = [part for part in parts if part.get("type") != "null"]
    default = schema.get("default")
    is_empty = default is None or default == []
    field = FormField(name, "json", schema.get("description", ""), default="" if is_empty else default)
    if len(given) != 1:
        return replace(field, kind="mixed")
    part = {**given[0], **{key: value for key, value in schema.items() if key in {"minimum", "maximum"}}}
    return replace(field, **_of_type(part, may_be_left_out=may_be_left_out))


def _of_type(part: dict[str, Any], *, may_be_left_out: bool) -> dict[str, Any]:
    """Kind and bounds of a field, from its schema."""
    found: dict[str, Any] = {}
    match part.get("type"):
        case "string" if "enum" in part or "const" in part:
            choices = part.get("enum") or [part["const"]]
            found = {"kind": "choice", "choices": (*([""] if may_be_left_out else []), *choices)}
        case "string":
            longest = part.get("maxLength")
            found = {"kind": "long text" if longest and longest > _LONG_TEXT else "text", "longest": longest}
        case "boolean":
            found = {"kind": "switch"}
        case "integer" | "number" as kind:
            maximum = part.get("maximum", part.get("exclusiveMaximum"))
            found = {"kind": kind, "minimum": part.get("minimum"), "maximum": maximum}
        case "object" if {"height", "width"} == part.get("properties", {}).keys():
            found = {"kind": "size"}
    return found


def _resolved(part: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in part:
        return dict(definitions.get(part["$ref"].rpartition("/")[2], {}))
    return part
