"""One LoRA or several in a request."""

import re
from typing import Any

import pytest

from libs.errors import InputError
from libs.requests.documents.animation_request import ResolvedRequest, validate_request_fields

REQUEST = {"id": "dance", "reference": "a.png", "driver": "b.mp4", "model": "sandbox"}


def resolved(**fields: Any) -> ResolvedRequest:
    request = validate_request_fields({**REQUEST, **fields}, source="dance.yaml").resolve("sandbox")
    assert ResolvedRequest.model_validate_json(request.model_dump_json()) == request, "as it is stored"
    return request


def test_several_loras_have_a_strength_each() -> None:
    request = resolved(loras=[{"name": "fast"}, {"name": "look", "strength": 0.7}])
    assert [(one.name, one.strength) for one in request.chosen_loras] == [("fast", 1.0), ("look", 0.7)]
    assert request.clip_fields()["loras"] == [{"name": "fast", "strength": 1.0}, {"name": "look", "strength": 0.7}]


def test_a_list_of_one_is_the_same_request_as_one_lora() -> None:
    assert resolved(loras=[{"name": "look", "strength": 0.7}]) == resolved(lora="look", lora_strength=0.7)


def test_listed_loras_take_the_place_of_the_presets() -> None:
    request = resolved(model="14b", preset="fast-8", loras=[{"name": "fast"}, {"name": "look"}])
    assert request.lora is None
    assert [one.name for one in request.chosen_loras] == ["fast", "look"]


def test_a_request_without_them_is_stored_as_before() -> None:
    assert not resolved(lora_strict=True).clip_fields().keys() & {"loras", "lora_strict"}
    assert resolved(lora="look", lora_strict=False).clip_fields()["lora_strict"] is False


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loras": []}, "loras: must not be empty"),
        ({"loras": [{"name": "a"}, {"name": "a"}]}, "loras: names a more than once"),
        ({"loras": [{"name": "a"}], "lora": "b"}, "loras: stands in the place of lora and lora_strength"),
        ({"loras": [{"name": "a", "strength": 5}]}, "loras, entry 1.strength: may be at most 4"),
        ({"loras": ["a"]}, "loras, entry 1: must have a name and may have a strength"),
        ({"loras": [{"name": "a", "strenght": 1}]}, "did you mean strength?"),
    ],
)
def test_wrong_lists_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        resolved(**fields)
