"""The catalogues of texts, and the form that follows the request model."""

import re
import string

import pytest

from libs.requests.documents.animation_request import AnimationRequest
from orchestration.studio.forms import form_fields
from orchestration.studio.texts import FOLDER, Texts, catalogue, chosen, languages


@pytest.mark.parametrize("language", sorted(languages()))
def test_every_language_says_everything(language: str) -> None:
    english, other = catalogue("en"), catalogue(language)
    assert english.keys() == other.keys()
    for key, text in english.items():
        blanks = [{name for _, name, _, _ in string.Formatter().parse(each) if name} for each in (text, other[key])]
        assert blanks[0] == blanks[1], key


def test_templates_name_only_texts_that_there_are() -> None:
    pages = [path.read_text() for path in FOLDER.with_name("templates").glob("*.html")]
    used = {key for page in pages for key in re.findall(r"""\bt\(["']([a-z_.]+)["'][,)]""", page)}
    assert used
    assert used <= catalogue("en").keys()
    scripts = [path.read_text() for path in FOLDER.with_name("static").glob("*.js")]
    said = {f"js.{key}" for script in scripts for key in re.findall(r"""\bsay\("([a-z_]+)\"""", script)}
    assert said == {key for key in catalogue("en") if key.startswith("js.")}


def test_every_field_of_a_request_is_in_the_form() -> None:
    first, more = form_fields(["sandbox", "14b"], "14b")
    shown = {field.name: field for field in [*first, *more]}
    assert shown.keys() | {"id", "reference", "driver"} == AnimationRequest.model_fields.keys()
    assert shown["steps"].kind == "integer"
    assert (shown["steps"].minimum, shown["steps"].maximum) == (1, 200)
    assert shown["size"].kind == "size"
    assert shown["mode"].choices == ("auto", "ref", "pose")
    assert shown["model"].choices == ("", "sandbox", "14b")
    assert shown["keep_audio"].kind == "switch"


def test_a_model_that_is_there_is_chosen_where_the_usual_one_is_not() -> None:
    shown = {field.name: field for field in form_fields(["sandbox"], "14b")[0]}
    assert shown["model"].choices == ("sandbox",)


@pytest.mark.parametrize(
    ("cookie", "accepted", "language"),
    [(None, "", "en"), (None, "zh-CN,zh;q=0.9", "zh"), ("en", "zh", "en"), ("../x", "fr, de", "en")],
)
def test_the_language_is_the_persons(cookie: str | None, accepted: str, language: str) -> None:
    assert chosen(cookie, accepted) == language
    assert Texts(language)("nav.clips")
