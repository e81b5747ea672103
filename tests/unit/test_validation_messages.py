"""What pydantic found wrong is said without its own words, for every setting and every kind of fault."""

import re

import pytest
from pydantic import BaseModel, Field, ValidationError

from libs.errors import SettingsError
from libs.messages.validation import field_path, shown, what_was_expected
from libs.settings import Settings, load_settings

WORDS_OF_PYTHON = re.compile(
    r"Input should|Extra inputs|Value error|valid (string|dictionary|integer|number|boolean|list)|NoneType|None\b|"
    r"<class|instance of|\bdict\b|\bstr\b|\bint\b|pydantic|Traceback|datetime"
)

HOSTILE_VALUES = [
    "soon",
    "-1",
    "nan",
    "inf",
    "1e999",
    "9" * 5000,
    "[]",
    "null",
    "None",
    "0x10",
    "1_0_",
    "\x1b[31m",
    "ä",
]


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setitem(Settings.model_config, "env_file", None)


@pytest.mark.parametrize("name", [name.upper() for name in Settings.model_fields])
def test_no_setting_answers_in_words_of_python(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for value in HOSTILE_VALUES:
        monkeypatch.setenv(name, value)
        try:
            load_settings()
        except SettingsError as error:
            message = str(error).replace(repr(value), "").replace(shown(value), "")
            assert name in message
            assert not WORDS_OF_PYTHON.search(message), message
            assert str(error).isprintable() or not value.isprintable()


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("ARCHIVE_AFTER_DAYS", "soon", 'ARCHIVE_AFTER_DAYS: must be a number (found "soon")'),
        ("ARCHIVE_AFTER_DAYS", "-1", 'ARCHIVE_AFTER_DAYS: must be at least 0 (found "-1")'),
        ("CHUNK_MAX_AGE_DAYS", "40000", 'CHUNK_MAX_AGE_DAYS: may be at most 36500 (found "40000")'),
        ("ONE_TO_ALL_COMPILE", "ja", 'ONE_TO_ALL_COMPILE: must be true or false (found "ja")'),
        ("MODEL_HUB", "hub", "MODEL_HUB: must be 'modelscope' or 'huggingface' (found \"hub\")"),
    ],
)
def test_a_wrong_setting_is_shown_with_what_is_expected(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == expected


class _Part(BaseModel):
    number: int = Field(gt=1, lt=5)


class _Everything(BaseModel, extra="forbid"):
    part: _Part = _Part(number=2)
    parts: list[_Part] = Field([], min_length=2, max_length=3)
    pairs: dict[str, float] = {}
    text: str = Field("", min_length=2, max_length=4, pattern="^a")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"part": 3}, "part: must be a mapping of fields, as in {name: value}"),
        ({"part": {}}, "part.number: is required"),
        ({"part": {"number": 1}}, "part.number: must be more than 1"),
        ({"part": {"number": 5}}, "part.number: must be less than 5"),
        ({"part": {"number": 2.5}}, "part.number: must be a whole number"),
        ({"parts": {}}, "parts: must be a list, as in [one, two]"),
        ({"parts": [{"number": 2}]}, "parts: must have at least 2"),
        ({"parts": [{"number": 2}] * 4}, "parts: may have at most 3"),
        ({"parts": [{"number": 2}, {"number": "x"}]}, "parts, entry 2.number: must be a whole number"),
        ({"pairs": []}, "pairs: must be a mapping of fields, as in {name: value}"),
        ({"pairs": {"a": "x"}}, "pairs.a: must be a number"),
        ({"text": 3}, "text: must be text: put it into quotes"),
        ({"text": "abcde"}, "text: may have at most 4 characters"),
        ({"text": "ba"}, "text: has characters that are not allowed there"),
        ({"text": "\ud800"}, "text: holds half a character (a surrogate without its other half)"),
        ({"more": 1}, "more: is unknown"),
    ],
)
def test_each_kind_of_fault_has_words(fields: dict[str, object], expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        _Everything.model_validate(fields)
    problem = caught.value.errors()[0]
    assert f"{field_path(problem['loc'])}: {what_was_expected(problem)}" == expected


def test_a_kind_that_has_no_words_yet_says_no_nonsense() -> None:
    assert what_was_expected({"type": "uuid_parsing", "msg": "Input should be a valid UUID"}) == "cannot be used"


def test_values_are_shown_as_people_write_them() -> None:
    values = [None, True, 3, 0.5, "a", [1, 2], {"a": 1}, float("inf"), "x" * 500]
    assert [shown(value) for value in values[:-1]] == [
        *("nothing", "true", "3", "0.5", '"a"', "a list of 2", "a mapping of 1", "infinity")
    ]
    assert len(shown(values[-1])) == 120
