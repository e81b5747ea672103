"""Reading a document's text is bounded, whatever it holds."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.errors import InputError
from libs.requests import document as module
from libs.requests.document import MAX_DOCUMENT_BYTES, load_document

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + level)}: &{chr(98 + level)} [{','.join(['*' + chr(97 + level)] * 10)}]\n" for level in range(10)
)
MERGES = "a: &a {k0: 0}\n" + "".join(
    f"{chr(98 + level)}: &{chr(98 + level)} {{<<: [{','.join(['*' + chr(97 + level)] * 10)}]}}\n" for level in range(10)
)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("[" * 100_000, "neither YAML nor JSON"),
        ("- " * 100_000, "nested more than"),
        ("{a: " * 50_000, "nested more than"),
        (LAUGHS, "once its aliases are written out"),
        (MERGES, "once its aliases are written out"),
        ("a: &a [*a]", "an alias stands inside"),
        ("9" * 900_000, "neither YAML nor JSON"),
        (b"\xff\xfe", "not UTF-8"),
        ("!!python/object/apply:os.system ['true']", "neither YAML nor JSON"),
        ("x" * (MAX_DOCUMENT_BYTES + 1), "at most"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_hostile_documents_are_refused_quickly(document: str | bytes, expected: str) -> None:
    started = time.monotonic()
    with pytest.raises(InputError, match=expected):
        load_document(document, source="a.yaml")
    assert time.monotonic() - started < 5


def test_what_just_fits_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_document("x" * MAX_DOCUMENT_BYTES, source="a.yaml") == "x" * MAX_DOCUMENT_BYTES
    assert load_document("- " * 20 + "x", source="a.yaml")
    with pytest.raises(InputError, match="nested more than 20 levels"):
        load_document("- " * 21 + "x", source="a.yaml")
    monkeypatch.setattr(module, "_MAX_VALUES", 9)
    assert len(load_document("{a: &a [b, c], d: *a}", source="a.yaml")) == 2
    with pytest.raises(InputError, match="more than 9 values"):
        load_document("{a: &a [b, c], d: *a, e: f}", source="a.yaml")


def test_aliases_and_merges_work() -> None:
    document = "common: &common {seed: 3}\nfirst: {<<: *common, id: a}\nsecond: *common\n"
    assert load_document(document, source="a.yaml") == {
        "common": {"seed": 3},
        "first": {"seed": 3, "id": "a"},
        "second": {"seed": 3},
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda values: st.lists(values, max_size=5) | st.dictionaries(st.text(max_size=8), values, max_size=5),
    max_leaves=30,
)


@given(json_values)
def test_json_is_read_as_it_is(value: object) -> None:
    assert load_document(json.dumps(value), source="a.json") == value
