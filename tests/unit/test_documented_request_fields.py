"""docs/requests.md describes exactly the fields a request has, with pictures that are there and current."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import annotated_types
import numpy as np
import pytest
from PIL import Image

from libs.model_repo.variants import VARIANTS
from libs.requests.documents.animation_request import DEFAULT_NEGATIVE_PROMPT, AnimationRequest, OutputSize
from libs.requests.documents.batch import parse_submission
from libs.settings import REPOSITORY_ROOT

PAGE = REPOSITORY_ROOT / "docs/requests.md"
DOCUMENT = PAGE.read_text()
PICTURES = REPOSITORY_ROOT / "assets/requests"
ROWS = {
    match.group(1): [cell.strip() for cell in match.group(0).split("|")[2:-1]]
    for match in re.finditer(r"^\| `(\w+)` \|.*$", DOCUMENT, re.MULTILINE)
}
WITHOUT_A_LIMIT_IN_ITS_ROW = {"seed"}
"""2⁶³ - 1 is written with a superscript."""


def test_every_field_has_its_row() -> None:
    assert list(ROWS) == list(AnimationRequest.model_fields)


def test_every_field_that_shapes_the_clip_is_explained_below_the_table() -> None:
    explanations = DOCUMENT.partition("\n## Picture")[2]
    missing = [name for name in ROWS if name not in {"id"} and f"`{name}" not in explanations]
    assert missing == []


def test_defaults_that_are_words_or_numbers_are_documented() -> None:
    for name, field in AnimationRequest.model_fields.items():
        default = ROWS[name][1]
        if field.is_required():
            assert default == "required"
        elif isinstance(field.default, bool):
            assert default == f"`{str(field.default).lower()}`"
        elif isinstance(field.default, int | str) and name not in {"prompt", "negative_prompt"}:
            assert default.strip("`") == str(field.default)
    assert f"`{DEFAULT_NEGATIVE_PROMPT}`" in DOCUMENT


def numeric_limits(model: Any) -> dict[str, list[str]]:
    """Field -> its smallest and largest allowed number, as the page writes them."""
    return {
        name: [f"{edge:g}".replace("-", "−") for item in field.metadata if (edge := edge_of(item)) is not None]
        for name, field in model.model_fields.items()
        if name not in WITHOUT_A_LIMIT_IN_ITS_ROW
    }


def edge_of(item: object) -> float | None:
    match item:
        case annotated_types.Ge(ge=edge) | annotated_types.Le(le=edge):
            return float(edge)  # type: ignore[arg-type]  # numbers, in these models
        case _:
            return None


def test_limits_and_choices_are_documented() -> None:
    limits = numeric_limits(AnimationRequest)
    limits["size"] = numeric_limits(OutputSize)["height"]
    for name, edges in limits.items():
        assert all(re.search(rf"(?<!\d){edge}(?!\d)", ROWS[name][0]) for edge in edges), (name, edges)
    for name, field in AnimationRequest.model_fields.items():
        choices = [choice for choice in get_args(field.annotation) if isinstance(choice, str)]
        assert all(f"`{choice}`" in ROWS[name][0] for choice in choices), (name, choices)
    longest = {
        item.max_length
        for field in AnimationRequest.model_fields.values()
        for item in field.metadata
        if isinstance(item, annotated_types.MaxLen)
    }
    assert all(f"{length}" in DOCUMENT for length in longest)


def test_every_variant_is_named() -> None:
    plain = [name for name in VARIANTS if not name.endswith("-fp8")]
    assert all(f"`{name}`" in ROWS["model"][0] for name in plain)


def test_size_limits_are_the_variants_own() -> None:
    for name, limit in (("14b", 576), ("1.3b_1", 384), ("sandbox", 128)):
        assert VARIANTS[name].sampling.short_side_limit == limit
        assert f"{limit}" in ROWS["size"][2]


@pytest.mark.parametrize("page", ["docs/requests.md", "docs/batch.md", "docs/first-clip.md", "README.md"])
def test_every_example_is_a_request(page: str) -> None:
    text = (REPOSITORY_ROOT / page).read_text()
    examples = re.findall(r"^ *```yaml\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    requests = [example for example in examples if "reference" in example]
    assert requests, "no example of a request"
    for number, example in enumerate(requests):
        assert parse_submission(_flush_left(example), source=f"{page}, example {number + 1}").requests


def _flush_left(example: str) -> str:
    indent = len(example) - len(example.lstrip(" "))
    return "\n".join(line[indent:] for line in example.splitlines())


def test_every_picture_is_shown_and_they_are_small() -> None:
    shown = {(PAGE.parent / path).resolve() for path in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", DOCUMENT)}
    assert shown == set(PICTURES.iterdir())
    assert sum(path.stat().st_size for path in shown) < 1_500_000


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    """The script that makes them."""
    path = REPOSITORY_ROOT / "assets/make_request_pictures.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_pictures_are_those_of_todays_stages(pictures: ModuleType, tmp_path: Path) -> None:
    """Two of them are made again: all that moves, fades or is cut away shows in one of them."""
    assert {f"{name}.webp" for name in pictures.PICTURES} == {path.name for path in PICTURES.iterdir()}
    again = ("face-and-head", "size")
    pictures.write_pictures(tmp_path, again)
    for name in again:
        made, kept = (
            np.asarray(Image.open(folder / f"{name}.webp").convert("RGB"), np.int16) for folder in (tmp_path, PICTURES)
        )
        assert made.shape == kept.shape
        assert np.abs(made - kept).mean() < 1, f"{name} is out of date: make pictures"
