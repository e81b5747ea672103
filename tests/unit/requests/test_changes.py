"""Why a stored clip is not what its request asks for now, by the names of the fields."""

from datetime import UTC, datetime
from typing import Any

import pytest

from libs.provenance.record import ClipOrigin, Device, InputFile, ModelFiles
from libs.requests.documents.animation_request import AnimationRequest
from libs.requests.inbox.accepted_media import AcceptedMedium
from libs.requests.lifecycle.accepted import AcceptedRequest
from libs.requests.lifecycle.changes import changes_since

DIGEST = "a" * 64
OTHER = "b" * 64


def accepted(media: dict[str, str | None] | None = None, **fields: Any) -> AcceptedRequest:
    """A request as it is asked for now; ``media``: path -> digest."""
    request = AnimationRequest.model_validate({"id": "a", "reference": "p.png", "driver": "d.mp4", **fields})
    return AcceptedRequest(
        request=request.resolve("sandbox"),
        content="0" * 32,
        revision=1,
        document="a.json",
        accepted=datetime.now(UTC),
        media={
            path: AcceptedMedium(key=f"media/{path}", size=1, sha256=digest) for path, digest in (media or {}).items()
        },
    )


def origin(request: AcceptedRequest) -> ClipOrigin:
    """What the clip of ``request`` was made of."""
    fields = request.request.clip_fields()
    return ClipOrigin(
        request=fields,
        reference=InputFile(path=fields["reference"], sha256=DIGEST),
        driver=InputFile(path=fields["driver"], sha256=DIGEST),
        pose_conditioning=DIGEST,
        model=ModelFiles(variant="sandbox", locks={}),
        engine={},
        code_version="1",
        libraries={},
        device=Device(kind="cpu", name="cpu", dtype="float32"),
    )


@pytest.mark.parametrize(
    ("now", "changes"),
    [
        ({}, []),
        ({"priority": 9, "when": "nightly"}, []),
        ({"seed": 7}, ["another seed"]),
        ({"reference": "q.png"}, ["another picture"]),
        ({"driver": "e.mp4"}, ["another video"]),
        ({"seed": 7, "prompt": "new"}, ["another prompt, seed"]),
        ({"lora": "look"}, ["another lora"]),
        ({"pose_guidance": 3.0}, ["another pose guidance"]),
        ({"seed": 7, "prompt": "n", "steps": 9, "face": "none"}, ["another face, prompt, steps and 1 more"]),
    ],
    ids=str,
)
def test_fields_that_differ_are_named(now: dict[str, Any], changes: list[str]) -> None:
    assert changes_since(origin(accepted()), accepted(**now)) == changes


def test_a_field_the_clip_was_made_with_and_the_request_has_no_more_is_named() -> None:
    assert changes_since(origin(accepted(lora="look")), accepted()) == ["another lora"]


@pytest.mark.parametrize(
    ("media", "changes"),
    [
        ({"p.png": DIGEST, "d.mp4": DIGEST}, []),
        ({"p.png": None, "d.mp4": None}, []),
        ({"p.png": OTHER, "d.mp4": DIGEST}, ["picture p.png replaced"]),
        ({"p.png": DIGEST, "d.mp4": OTHER}, ["video d.mp4 replaced"]),
        ({"p.png": OTHER, "d.mp4": OTHER}, ["picture p.png replaced", "video d.mp4 replaced"]),
    ],
    ids=["the same", "too large to be hashed", "picture", "video", "both"],
)
def test_files_of_the_same_name_with_other_content_are_named(media: dict[str, str | None], changes: list[str]) -> None:
    assert changes_since(origin(accepted()), accepted(media)) == changes
    assert changes_since(origin(accepted()), accepted(media, seed=7)) == [*changes, "another seed"]


def test_a_file_of_another_name_is_another_one_not_a_replaced_one() -> None:
    now = accepted({"q.png": OTHER, "d.mp4": OTHER}, reference="q.png")
    assert changes_since(origin(accepted()), now) == ["video d.mp4 replaced", "another picture"]
