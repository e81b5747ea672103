"""docs/requests.md lists exactly the fields a request has, with the defaults it has."""

import re

from libs.animation_request import AnimationRequest
from libs.model_repo.variants import VARIANTS
from libs.settings import REPOSITORY_ROOT

DOCUMENT = (REPOSITORY_ROOT / "docs/requests.md").read_text()
ROWS = {
    match.group(1): [cell.strip() for cell in match.group(0).split("|")[2:-1]]
    for match in re.finditer(r"^\| `(\w+)` \|.*$", DOCUMENT, re.MULTILINE)
}


def test_every_field_has_its_row() -> None:
    assert list(ROWS) == list(AnimationRequest.model_fields)


def test_defaults_that_are_words_or_numbers_are_documented() -> None:
    for name, field in AnimationRequest.model_fields.items():
        default = ROWS[name][1]
        if field.is_required():
            assert default == "required"
        elif isinstance(field.default, bool):
            assert default == f"`{str(field.default).lower()}`"
        elif isinstance(field.default, int | str) and name not in {"prompt", "negative_prompt"}:
            assert default.strip("`") == str(field.default)


def test_every_variant_is_named() -> None:
    plain = [name for name in VARIANTS if not name.endswith("-fp8")]
    assert all(f"`{name}`" in ROWS["model"][0] for name in plain)


def test_size_limits_are_the_variants_own() -> None:
    for name, limit in (("14b", 576), ("1.3b_1", 384), ("sandbox", 128)):
        assert VARIANTS[name].sampling.short_side_limit == limit
        assert f"{limit}" in ROWS["size"][2]
