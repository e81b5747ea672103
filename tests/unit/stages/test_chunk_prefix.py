"""The chunks of a clip are found again exactly as long as they would be made the same."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libs.housekeeping.old_chunks import remove_old_chunks
from libs.requests.documents.animation_request import AnimationRequest
from libs.stages.clip import chunk_prefix as chunk_prefix_module
from libs.stages.clip.chunk_prefix import chunk_prefix
from libs.storage.backends.folder import FolderObjectStore
from libs.storage.chunks import StoredChunks

REQUEST = {"id": "dance", "reference": "a.png", "driver": "b.mp4", "model": "sandbox", "steps": 4}
DETERMINES = {"conditioning": "c" * 64, "model": {"animation_model": "d" * 64}, "precision": "torch.bfloat16"}

PIXELS: dict[str, Any] = {
    "model": "1.3b_1",
    "prompt": "in the rain",
    "negative_prompt": "blurred",
    "preset": "fast-4",
    "steps": 5,
    "schedule": "linear",
    "shift": 5.0,
    "sampler": "unipc",
    "image_guidance": 3.5,
    "pose_guidance": 3.5,
    "pose_guidance_alone": True,
    "quality": "draft",
    "seed": 7,
    "match_colours": True,
}
"""Field -> another value of it, with which the network makes other pixels of the same conditioning."""

CONDITIONING: dict[str, Any] = {
    "reference": "renamed.png",
    "driver": "renamed.mp4",
    "mode": "pose",
    "align": "no",
    "anchor": "auto",
    "face": "none",
    "head": "none",
    "frame_interval": 2,
    "start": 1.5,
    "duration": "75f",
    "pose_networks": "mediapipe",
    "size": {"height": 64, "width": 48},
    "allow_large": True,
}
"""Those that count as what the poses, pictures and frames became: as the conditioning's digest."""

AROUND_THE_PIXELS: dict[str, Any] = {"priority": 50, "when": "nightly", "keep_audio": False, "accept_poor_poses": True}


def prefix(fields: Mapping[str, Any] = {}, **changes: Any) -> str:
    request = AnimationRequest.model_validate({**REQUEST, **fields}).resolve("sandbox")
    return chunk_prefix(request, **{"lora_sha256s": (), "code_version": "1", **DETERMINES, **changes})


def test_every_field_of_a_request_is_known_to_count_or_not() -> None:
    by_path_and_by_content = {"id", "lora", "lora_strength", "loras", "lora_strict"}
    known = PIXELS.keys() | CONDITIONING.keys() | AROUND_THE_PIXELS.keys() | by_path_and_by_content
    assert known == AnimationRequest.model_fields.keys(), "does the new field change the pixels a chunk is made of?"


@pytest.mark.parametrize(("field", "value"), PIXELS.items())
def test_what_changes_the_pixels_leaves_chunks_behind(field: str, value: Any) -> None:
    assert prefix({field: value}) != prefix()


@pytest.mark.parametrize(("field", "value"), (CONDITIONING | AROUND_THE_PIXELS).items())
def test_what_changes_no_pixel_keeps_them(field: str, value: Any) -> None:
    assert prefix({field: value}) == prefix()


@pytest.mark.parametrize(
    "change",
    [
        {"conditioning": "e" * 64},
        {"model": {"animation_model": "e" * 64}},
        {"model": None},
        {"code_version": "3"},
        {"precision": "torch.bfloat16, VAE in tiles"},
        {"code_version": "2"},
    ],
    ids=str,
)
def test_what_the_work_is_done_with_counts(change: dict[str, Any]) -> None:
    assert prefix(**change) != prefix()


def test_chunks_from_before_the_shift_was_recorded_are_found_again() -> None:
    """Their names, as the version without it made them."""
    assert prefix() == "chunks/dance/f173be3d35304e15aefbda4b29f9b03a"
    assert prefix({"quality": "draft"}) == "chunks/dance/8646464fd9e9cac79e2f379f04a50989"


def test_another_shift_of_the_schedule_leaves_chunks_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    today, options = prefix(), chunk_prefix_module.sampling_options
    monkeypatch.setattr(chunk_prefix_module, "sampling_options", lambda *of: replace(options(*of), shift=5.0))
    assert prefix() != today


def test_a_lora_counts_with_its_content_and_not_with_its_name() -> None:
    assert prefix({"lora": "renamed"}, lora_sha256s=["a" * 64]) == prefix(
        {"lora": "distilled"}, lora_sha256s=["a" * 64]
    )


def test_a_lora_counts_with_its_strength() -> None:
    names = {
        prefix({"lora": "distilled", "lora_strength": strength}, lora_sha256s=["a" * 64]) for strength in (0.5, 1, 1.5)
    }
    assert len(names) == 3
    assert prefix({"lora": "distilled"}, lora_sha256s=["a" * 64]) in names


def test_several_loras_count_with_content_strength_and_order() -> None:
    def several(first: float, second: float) -> dict[str, Any]:
        return {"loras": [{"name": "one", "strength": first}, {"name": "two", "strength": second}]}

    digests = ["a" * 64, "b" * 64]
    names = {
        prefix(several(1, 1), lora_sha256s=digests),
        prefix(several(1, 0.5), lora_sha256s=digests),
        prefix(several(1, 1), lora_sha256s=digests[::-1]),
        prefix({"lora": "one"}, lora_sha256s=digests[:1]),
    }
    assert len(names) == 4
    listed = prefix({"loras": [{"name": "one", "strength": 0.5}]}, lora_sha256s=digests[:1])
    assert listed == prefix({"lora": "one", "lora_strength": 0.5}, lora_sha256s=digests[:1])
    assert prefix({"lora": "one", "lora_strict": False}, lora_sha256s=digests[:1]) in names


def test_chunks_with_one_lora_from_before_there_could_be_several_are_found_again() -> None:
    names = [prefix({"lora": "x", "lora_strength": by}, lora_sha256s=["a" * 64]) for by in (1, 0.5)]
    assert names == [
        f"chunks/dance/{digest}" for digest in ("3525a1c4ee61a874d60474956df0ed5b", "b2611334ada2dc949b14146092aef566")
    ]


def test_chunks_of_current_and_older_keys_are_removed_when_a_clip_is_abandoned(tmp_path: Path) -> None:
    objects, frames = FolderObjectStore(tmp_path), np.zeros((2, 4, 4, 3), np.uint8)
    names = {prefix(), "chunks/dance/" + "0" * 32}
    for name in names:
        StoredChunks(objects, f"{name}/81-5-81").save(0, frames)
    removed = remove_old_chunks(objects, timedelta(days=7), datetime.now(UTC) + timedelta(days=8))
    assert {chunks.prefix for chunks in removed} == names
    assert not list(objects.list("chunks/"))
