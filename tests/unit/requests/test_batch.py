"""Documents with several requests: ids that are stable, unique and safe; errors that name what is wrong."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.errors import InputError
from libs.requests.documents.animation_request import REQUEST_ID_PATTERN
from libs.requests.documents.batch import grid_request_id, parse_submission
from libs.storage.backends.keys import check_file_name, check_key

GRID = """
batch: spring
references: [puppet.png, people/Änna.png]
drivers: [dance.mp4, walk.mp4]
settings:
  plain:
  strict: {seed: 2, align: no}
common: {model: 14b, priority: 5}
"""

names = st.from_regex(r"^[a-z0-9][a-z0-9_-]{0,31}$", fullmatch=True)
paths = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\\/"), min_size=1, max_size=80
).filter(lambda name: name not in {".", ".."})
grids = st.fixed_dictionaries(
    {
        "batch": names,
        "references": st.lists(paths, min_size=1, max_size=4, unique=True),
        "drivers": st.lists(paths, min_size=1, max_size=4, unique=True),
        "settings": st.dictionaries(names, st.fixed_dictionaries({"seed": st.integers(0, 9)}), max_size=3),
    }
)


def parse(document: object) -> dict[str, object]:
    submission = parse_submission(json.dumps(document), source="inbox/a.json")
    return {request.id: request for request in submission.requests}


def refusal(document: object) -> str:
    text = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(InputError) as caught:
        parse_submission(text, source="a.yaml")
    return str(caught.value)


def test_a_grid_is_every_combination() -> None:
    submission = parse_submission(GRID, source="spring.yaml")
    assert submission.name == "spring"
    assert [request.id.rpartition("-")[0] for request in submission.requests] == [
        "spring-puppet-dance-plain",
        "spring-puppet-dance-strict",
        "spring-puppet-walk-plain",
        "spring-puppet-walk-strict",
        "spring-anna-dance-plain",
        "spring-anna-dance-strict",
        "spring-anna-walk-plain",
        "spring-anna-walk-strict",
    ]
    assert {request.priority for request in submission.requests} == {5}
    assert [request.seed for request in submission.requests[:2]] == [42, 2]
    assert submission.requests[1].align == "no"


def test_the_ids_of_a_batch_are_these_for_ever() -> None:
    assert grid_request_id("spring", "puppet.png", "dance.mp4", "plain") == "spring-puppet-dance-plain-cccc51e302"
    assert grid_request_id("spring", "日本.png", "dance.mp4") == "spring-dance-e278247734"


def test_a_list_is_its_requests() -> None:
    submission = parse_submission(
        "- {id: a, reference: r.png, driver: d.mp4}\n- {id: b, reference: r.png, driver: d.mp4}", source="many.yaml"
    )
    assert submission.name is None
    assert [request.id for request in submission.requests] == ["a", "b"]


def test_one_request_is_one_request() -> None:
    submission = parse_submission("id: a\nreference: r.png\ndriver: d.mp4", source="a.yaml")
    assert (submission.name, len(submission.requests)) == ("a", 1)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("batch: x\nreferences: [a, ./a]\ndrivers: [d]", "references: 'a' is listed more than once"),
        ("batch: X\nreferences: [a]\ndrivers: [d]", "batch: "),
        ("batch: x\nreferences: [a]\ndrivers: []", "drivers: "),
        ("batch: x\nreferences: [a]\ndrivers: [d]\nsetings: {}", "setings: unknown field; known fields: batch, "),
        ("batch: x\nreferences: [a]\ndrivers: [d]\nsettings: {a: {sede: 1}}", "settings.a: sede: unknown field"),
        ("batch: x\nreferences: [a]\ndrivers: [d]\nsettings: {A: {seed: 1}}", "settings.A"),
        ("batch: x\nreferences: [a]\ndrivers: [d]\ncommon: {id: b}", "common: id is not allowed here"),
        ("batch: x\nreferences: [a]\ndrivers: [d]\nsettings: {a: {driver: b}}", "settings: driver is not allowed here"),
        ("batch: x\nreferences: [../a]\ndrivers: [d]", "reference: must be a relative path"),
        ("batch: x\nreferences: [a]\ndrivers: [d]\ncommon: {reference: b}", "common: reference is not allowed here"),
        ([{}] * 10_001, "10001 requests; at most 10000"),
        ("[]", "the list of requests is empty"),
        ("[1]", "request 1: expected a mapping"),
        ("- {id: a, reference: r, driver: d}\n- {id: b, reference: r}", "request 2: driver: is required"),
        ("- &a {id: a, reference: r, driver: d}\n- *a", "'a' appears more than once"),
        ({"batch": "x", "references": [f"{n}" for n in range(101)], "drivers": [f"{n}" for n in range(100)]}, "10100"),
    ],
)
def test_what_is_wrong_is_named(document: object, expected: str) -> None:
    message = refusal(document)
    assert message.startswith("a.yaml: ")
    assert expected in message


@given(grids)
def test_ids_are_unique_and_safe_as_key_and_as_path(grid: dict[str, object]) -> None:
    requests = parse(grid)
    assert len(requests) == len(grid["references"]) * len(grid["drivers"]) * max(1, len(grid["settings"]))  # type: ignore[arg-type]
    for request_id in requests:
        assert re.fullmatch(REQUEST_ID_PATTERN, request_id)
        assert check_file_name(request_id) == request_id
        assert check_key(f"requests/accepted/{request_id}.json")


@given(grids, st.randoms())
def test_ids_and_contents_stay_when_the_batch_is_submitted_again_in_another_order(
    grid: dict[str, list[str]], random: object
) -> None:
    shuffled = {name: list(value) if isinstance(value, list) else value for name, value in reversed(grid.items())}
    random.shuffle(shuffled["references"])  # type: ignore[attr-defined]
    random.shuffle(shuffled["drivers"])  # type: ignore[attr-defined]
    assert parse(shuffled) == parse(grid)


@given(grids, paths)
def test_a_reference_more_leaves_the_other_ids_alone(grid: dict[str, list[str]], reference: str) -> None:
    before = parse(grid)
    after = parse({**grid, "references": [reference, *(name for name in grid["references"] if name != reference)]})
    assert before.items() <= after.items()


@given(names, names, paths, paths, paths, paths)
def test_other_names_give_other_ids(one: str, two: str, a: str, b: str, c: str, d: str) -> None:
    first, second = (one, a, b), (two, c, d)
    assert (grid_request_id(*first) == grid_request_id(*second)) == (first == second)


@settings(max_examples=300)
@given(st.text(max_size=200) | st.binary(max_size=200))
def test_any_text_parses_or_explains_itself(document: str | bytes) -> None:
    try:
        parse_submission(document, source="a.yaml")
    except InputError as error:
        assert str(error).startswith("a.yaml: ")
        str(error).encode()
