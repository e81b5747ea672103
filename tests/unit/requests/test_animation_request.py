"""The request document: what is accepted, what is refused and with which words."""

import json
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from libs.errors import InputError
from libs.model_repo.variants import VARIANTS
from libs.requests.documents.animation_request import (
    REQUEST_ID_PATTERN,
    AnimationRequest,
    ResolvedRequest,
    parse_request,
)

MINIMAL = {"id": "clip-1", "reference": "puppet.png", "driver": "dance.mp4"}


def parse(**fields: object) -> AnimationRequest:
    return parse_request(json.dumps({**MINIMAL, **fields}), source="inbox/clip-1.json")


def test_a_minimal_request_gets_its_variants_defaults() -> None:
    resolved = parse(model="1.3b_1").resolve("14b")
    assert (resolved.steps, resolved.image_guidance, resolved.pose_guidance) == (30, 2.5, 1.5)
    assert (resolved.face, resolved.head, resolved.mode, resolved.align) == ("faded", "faded", "auto", "auto")
    assert resolved.seed == 42
    assert resolved.negative_prompt.startswith("black background")


def test_the_default_model_is_the_callers() -> None:
    assert parse().resolve("sandbox").model == "sandbox"
    assert parse(model="14b").resolve("sandbox").model == "14b"


def test_exact_is_the_default_and_leaves_stored_requests_as_they_were() -> None:
    assert parse().quality == "exact"
    exact = parse(quality="exact").resolve("14b")
    assert exact.clip_fields() == parse().resolve("14b").clip_fields()
    assert "quality" not in exact.model_dump() | exact.clip_fields()
    left_out = {"anchor", "lora", "lora_strength", "accept_poor_poses", "pose_networks", "start", "duration"}
    assert not left_out & (exact.model_dump() | exact.clip_fields()).keys()
    assert ResolvedRequest.model_validate(exact.clip_fields()) == exact


@pytest.mark.parametrize("anchor", [0, 3, "auto"])
def test_another_anchor_is_another_clip(anchor: object) -> None:
    other = parse(anchor=anchor).resolve("14b")
    assert other.clip_fields() == parse(anchor="first").resolve("14b").clip_fields() | {"anchor": anchor}
    assert ResolvedRequest.model_validate_json(other.model_dump_json()) == other


def test_another_strength_of_a_lora_is_another_clip() -> None:
    half = parse(lora="distilled", lora_strength=0.5).resolve("14b")
    assert half.clip_fields() == parse(lora="distilled").resolve("14b").clip_fields() | {"lora_strength": 0.5}
    assert ResolvedRequest.model_validate_json(half.model_dump_json()) == half


def test_accepting_poor_poses_is_another_content_and_no_other_drawing() -> None:
    accepting = parse(accept_poor_poses=True).resolve("14b")
    assert accepting.clip_fields() == parse().resolve("14b").clip_fields() | {"accept_poor_poses": True}
    assert parse(accept_poor_poses=False).resolve("14b").clip_fields() == parse().resolve("14b").clip_fields()
    assert ResolvedRequest.model_validate_json(accepting.model_dump_json()) == accepting
    for wrong in ("yes", 1, None):
        with pytest.raises(InputError, match="accept_poor_poses"):
            parse(accept_poor_poses=wrong)


def test_another_quality_is_another_clip() -> None:
    fast = parse(quality="fast").resolve("14b")
    assert fast.clip_fields() == parse().resolve("14b").clip_fields() | {"quality": "fast"}
    assert ResolvedRequest.model_validate_json(fast.model_dump_json()) == fast


def test_a_guidance_of_zero_is_kept() -> None:
    assert parse(pose_guidance=0).resolve("14b").pose_guidance == 0


def test_yaml_words_are_words() -> None:
    request = parse_request("id: a\nreference: r.png\ndriver: d.mp4\nalign: yes\nkeep_audio: no\n", source="a.yaml")
    assert request.align == "yes"
    assert request.keep_audio is False


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"id": "Upper"}, "id"),
        ({"id": "../up"}, "id"),
        ({"id": "a/b"}, "id"),
        ({"id": "a|b"}, "id"),
        ({"id": "a,b"}, "id"),
        ({"id": "x" * 65}, "id"),
        ({"id": ""}, "id"),
        ({"id": "a\n"}, "id"),
        ({"id": 3}, "id"),
        ({"reference": "/etc/passwd"}, "reference"),
        ({"reference": "a/../../b.png"}, "reference"),
        ({"driver": "..\\d.mp4"}, "driver"),
        ({"driver": ""}, "driver"),
        ({"model": "15b"}, "model"),
        ({"mode": "fast"}, "mode"),
        ({"align": "maybe"}, "align"),
        ({"anchor": -1}, "anchor"),
        ({"anchor": "best"}, "anchor"),
        ({"anchor": True}, "anchor"),
        ({"anchor": 1.0}, "anchor"),
        ({"lora_strength": 0.5}, "lora_strength"),
        ({"lora": "distilled", "lora_strength": 4.5}, "lora_strength"),
        ({"lora": "distilled", "lora_strength": float("nan")}, "lora_strength"),
        ({"face": "half"}, "face"),
        ({"head": 1}, "head"),
        ({"steps": 0}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"steps": "30"}, "steps"),
        ({"image_guidance": -1}, "image_guidance"),
        ({"pose_guidance": 21}, "pose_guidance"),
        ({"seed": -1}, "seed"),
        ({"quality": "best"}, "quality"),
        ({"frame_interval": 0}, "frame_interval"),
        ({"size": {"height": 15, "width": 64}}, "size.height"),
        ({"size": {"height": 64}}, "size.width"),
        ({"size": {"height": 64, "width": 64, "depth": 1}}, "size.depth"),
        ({"keep_audio": "loud"}, "keep_audio"),
        ({"prmopt": "typo"}, "prmopt"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, object], named: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(**fields)
    assert str(caught.value).startswith(f"inbox/clip-1.json: {named}:")


def test_nan_is_out_of_range() -> None:
    document = yaml.safe_dump({**MINIMAL, "image_guidance": math.nan})
    with pytest.raises(InputError, match="image_guidance"):
        parse_request(document, source="a.yaml")


def test_a_missing_field_and_an_unknown_one_are_both_named() -> None:
    with pytest.raises(InputError, match=r"driver: is required; .*speed: unknown field"):
        parse_request("id: a\nreference: r.png\nspeed: 2\n", source="a.yaml")


@pytest.mark.parametrize("document", [b"\xff\xfe\x00", b"{", b"[1, 2]", b"just words", b"", b"a: [", b"!!python/x y"])
def test_what_is_no_request_is_refused(document: bytes) -> None:
    with pytest.raises(InputError, match=r"^a\.yaml: "):
        parse_request(document, source="a.yaml")


@pytest.mark.parametrize("bare", ["2026", "007", "true", "1e3", "0x1f", "9" * 5000])
def test_what_yaml_does_not_read_as_text_wants_quotes(bare: str) -> None:
    with pytest.raises(InputError, match=r"id: must be text: put it into quotes \(found "):
        parse_request(f"id: {bare}\nreference: r.png\ndriver: d.mp4", source="a.yaml")


@pytest.mark.parametrize("bare", ["2026-11-23", "no", "on", "1_000", "0b1"])
def test_what_only_old_yaml_did_not_read_as_text_is_text(bare: str) -> None:
    assert parse_request(f"id: {bare}\nreference: r.png\ndriver: d.mp4", source="a.yaml").id == bare


@pytest.mark.parametrize("word", ["yes", "Yes", "YES", "on", "true", "'yes'"])
def test_words_for_yes_and_no_are_taken_where_they_can_mean_nothing_else(word: str) -> None:
    fields = "id: a\nreference: r.png\ndriver: d.mp4\n"
    request = parse_request(f"{fields}align: {word}\nkeep_audio: {word}", source="a.yaml")
    assert (request.align, request.keep_audio) == ("yes", True)
    assert parse_request(f"{fields}keep_audio: Off", source="a.yaml").keep_audio is False


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("seed: 0777", "seed: 0777 begins with a zero, which some read as octal: write it without"),
        ("seed: 1:30:00", 'seed: must be a whole number, written in digits alone and without quotes (found "1:30:00")'),
        ("seed: 1_000", 'seed: must be a whole number, written in digits alone and without quotes (found "1_000")'),
        (f"seed: {'9' * 5000}", "seed: is far too large: it has 5000 digits"),
        (f"seed: 0x{'f' * 5000}", "seed: is far too large: it has 5000 digits"),
        (f"seed: 0o{'7' * 5000}", "seed: is far too large: it has 5000 digits"),
        (f"image_guidance: {'9' * 5000}", "image_guidance: is far too large: it has 5000 digits"),
        ("image_guidance: 1:00:00.0", "image_guidance: must be a number"),
        ("image_guidance: 1e400", "image_guidance: must be a finite number (found infinity)"),
        ("image_guidance: .nan", "image_guidance: must be a finite number (found not a number)"),
        ("priority: -.inf", "priority: must be a whole number"),
        (f"prompt: {'1' * 5000}", "prompt: must be text: put it into quotes (found 111"),
        (f"? {'1' * 5000}\n: 1", ": unknown field; known fields: id, "),
        ("prompt:", "prompt: has no value; write one, or leave the field out"),
        ("prompt: [a, b]", "prompt: must be text: put it into quotes (found a list of 2)"),
        ("size: 512", "size: must be height and width in pixels, as in {height: 768, width: 576} (found 512)"),
        ("size: {height: 64, width: 64, depth: 1}", "size.depth: unknown field; known fields: height, width"),
        ("prmopt: typo", "priority, when; did you mean prompt?"),
        ("mode: 3", "mode: must be 'auto', 'ref' or 'pose' (found 3)"),
        ("steps: 2.5", "steps: must be a whole number, written in digits alone and without quotes (found 2.5)"),
        ("steps: 0", "steps: must be at least 1 (found 0)"),
        ("priority: 101", "priority: may be at most 100 (found 101)"),
        ("keep_audio: loud", 'keep_audio: must be true or false, without quotes (found "loud")'),
        ("lora: my lora", "lora: must be the name of the LoRA's file without .safetensors"),
        (f"prompt: {'x' * 5001}", "prompt: may have at most 5000 characters"),
        ('"\\e[31m": 1', r"\x1b[31m: unknown field"),
    ],
)
def test_messages_are_for_people(field: str, expected: str) -> None:
    document = f"id: a\nreference: r.png\ndriver: d.mp4\n{field}\n"
    with pytest.raises(InputError) as caught:
        parse_request(document, source="a.yaml")
    assert expected in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("document", "found"),
    [("", "nothing: it is empty"), ("[a]", "a list"), ("- a\n- b", "a list"), ("words", '"words"'), ("3", "3")],
)
def test_a_document_without_fields_is_told_what_fields_are(document: str, found: str) -> None:
    with pytest.raises(InputError, match="expected a mapping of request fields, such as `id: clip-1`") as caught:
        parse_request(document, source="a.yaml")
    assert str(caught.value).endswith(f"found {found}")


def test_an_enormous_document_is_refused_before_it_is_read() -> None:
    with pytest.raises(InputError, match="at most"):
        parse_request(b"#" * 2_000_000, source="a.yaml")


@given(st.text(max_size=300) | st.binary(max_size=300))
def test_any_text_parses_or_explains_itself(document: str | bytes) -> None:
    try:
        parse_request(document, source="a.yaml")
    except InputError as error:
        assert str(error).startswith("a.yaml: ")


requests = st.builds(
    dict,
    id=st.from_regex(REQUEST_ID_PATTERN, fullmatch=True),
    reference=st.just("r.png"),
    driver=st.just("d.mp4"),
    model=st.none() | st.sampled_from(sorted(VARIANTS)),
    steps=st.none() | st.integers(1, 200),
    image_guidance=st.none() | st.floats(0, 20),
    pose_guidance=st.none() | st.floats(0, 20),
    prompt=st.text(max_size=40),
    anchor=st.sampled_from(["first", "auto"]) | st.integers(0, 10**6),
    quality=st.sampled_from(["exact", "fast", "draft"]),
    seed=st.integers(0, 2**63 - 1),
)


@given(requests)
def test_a_resolved_request_survives_storage_unchanged(fields: dict[str, object]) -> None:
    resolved = parse_request(json.dumps(fields), source="a.json").resolve("14b")
    stored = resolved.model_dump_json()
    assert ResolvedRequest.model_validate_json(stored) == resolved
    assert resolved.resolve("sandbox") == resolved
