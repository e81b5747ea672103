"""Bad media and bad model files through the real graph: explained, not retried, nothing half-written.

What does not belong here: wrong fields of a request (``test_graph``), and each reader's own rules (unit tests).
"""

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import dagster as dg
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from libs.requests.lifecycle.archive import REQUEST_ASSETS
from tests.integration.orchestration.small_requests import LARGER_WITH_SOUND, submit_small, write_small_media

REQUEST = "bad"
MADE_OF_POSES = ("pose_tracks", "pose_conditioning", "animation", "animation_review")

MakeFile = Callable[[Path, Path], None]
"""Writes the bad file to the first path; the second is the folder with the good picture and clip."""


@pytest.fixture(scope="session")
def good_media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_media(tmp_path_factory.mktemp("good"), 5)


def _cut(name: str, share: float) -> MakeFile:
    def write(target: Path, good: Path) -> None:
        content = (good / name).read_bytes()
        target.write_bytes(content[: int(len(content) * share)])

    return write


def _cut_jpeg(target: Path, good: Path) -> None:
    Image.open(good / "puppet.png").convert("RGB").save(target, format="JPEG")
    target.write_bytes(target.read_bytes()[: target.stat().st_size // 2])


def _content(content: bytes) -> MakeFile:
    return lambda target, _good: target.write_bytes(content) and None


def _picture(width: int, height: int) -> MakeFile:
    return lambda target, _good: Image.new("RGB", (width, height), (127, 127, 127)).save(target)


def _claimed_picture(width: int, height: int) -> MakeFile:
    """A PNG of a few hundred bytes that says it is ``width`` x ``height``."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return _content(b"\x89PNG\r\n\x1a\n" + chunks)


def _clip(width: int, height: int, frames: int) -> MakeFile:
    """A clip of one grey; with no frames a container whose video stream is empty."""

    def write(target: Path, _good: Path) -> None:
        with av.open(str(target), "w") as container:
            stream = container.add_stream("libx264", rate=24, width=width, height=height, pix_fmt="yuv420p")
            container.start_encoding()
            for _ in range(frames):
                picture = av.VideoFrame.from_ndarray(np.full((height, width, 3), 127, np.uint8), format="rgb24")
                container.mux(stream.encode(picture))
            if frames:
                container.mux(stream.encode(None))

    return write


BAD_MEDIA: list[tuple[str, str, MakeFile, str]] = [
    ("reference", "notes.png", _content(b"not a picture"), "not a picture"),
    ("reference", "empty.png", _content(b""), "not a picture"),
    ("reference", "cut.png", _cut("puppet.png", 0.8), "truncated or damaged"),
    ("reference", "cut.jpg", _cut_jpeg, "truncated or damaged"),
    ("reference", "dance.mp4", _cut("dance.mp4", 1.0), "not a picture"),
    ("reference", "huge.png", _claimed_picture(60_000, 60_000), "80 megapixels"),
    ("reference", "long.png", _picture(20_000, 32), "20000 x 32 pixels"),
    ("reference", "flat.png", _picture(200, 15), "at least 16 pixels"),
    ("driver", "notes.mp4", _content(b"not a video"), "not a readable video"),
    ("driver", "empty.mp4", _content(b""), "the file is empty"),
    ("driver", "cut.mp4", _cut("dance.mp4", 0.5), "cut off"),
    ("driver", "header.mp4", _cut("dance.mp4", 0.02), "cut off"),
    ("driver", "nothing.mp4", _clip(64, 64, frames=0), "video"),
    ("driver", "nothing.mkv", _clip(64, 64, frames=0), "video"),
    ("driver", "flat.mp4", _clip(64, 14, frames=4), "at least 16 pixels"),
]


@pytest.mark.parametrize(
    ("field", "name", "write", "expected"), BAD_MEDIA, ids=[f"{field}-{name}" for field, name, *_ in BAD_MEDIA]
)
def test_bad_media_are_refused_by_field_and_name(
    world: Any, good_media: Path, tmp_path: Path, field: str, name: str, write: MakeFile, expected: str
) -> None:
    write(tmp_path / name, good_media)
    _submit(world, good_media, tmp_path / name, **{field: name})

    result = world.animate(REQUEST, raise_on_error=False)

    message = _explained_failure(result, "validate_request")
    assert message.startswith(f"{field}: {name!r}: ")
    assert expected in message
    assert "scratch" not in message
    _assert_nothing_is_left(world, REQUEST_ASSETS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "name", "write", "subject"),
    [
        ("reference", "grey.png", _picture(64, 96), "the reference picture"),
        ("driver", "grey.mp4", _clip(64, 96, frames=3), "the driving video"),
    ],
)
def test_no_person_in_the_picture_or_the_clip_is_an_error(
    world: Any, good_media: Path, tmp_path: Path, field: str, name: str, write: MakeFile, subject: str
) -> None:
    write(tmp_path / name, good_media)
    _submit(world, good_media, tmp_path / name, **{field: name})
    result = world.animate(REQUEST, raise_on_error=False)
    assert _explained_failure(result, "pose_tracks").startswith(f"{subject}: no person found")
    _assert_nothing_is_left(world, MADE_OF_POSES)


@pytest.mark.slow
def test_an_anchor_outside_the_driver(world: Any, good_media: Path) -> None:
    _submit(world, good_media, anchor=5)
    result = world.animate(REQUEST, raise_on_error=False)
    assert _explained_failure(result, "pose_conditioning").startswith("anchor: there is no frame 5 in a driver of 5")
    _submit(world, good_media, anchor=4)
    assert world.animate(REQUEST, clip=False).success


def test_names_that_no_file_can_have_are_errors_of_their_field(world: Any, good_media: Path) -> None:
    for name in (".", "../secret.png", "/etc/passwd", "a\\b.png", "a\x7f.png"):
        _submit(world, good_media, reference=name)
        result = world.animate(REQUEST, raise_on_error=False)
        assert "reference: must be a relative path of a file below inbox/" in _explained_failure(
            result, "validate_request"
        )
        _assert_nothing_is_left(world, REQUEST_ASSETS)


def _not_finite(folder: Path) -> None:
    shard = next(folder.glob("model-00002-*.safetensors"))
    tensors = load_file(shard)
    next(iter(tensors.values())).view(-1)[0] = torch.nan
    _replace(shard, tensors)


def _vae_not_finite(folder: Path) -> None:
    weights = next(folder.glob("pretrained_models/*/vae/*.safetensors"))
    tensors = load_file(weights)
    next(iter(tensors.values())).view(-1)[0] = torch.inf
    _replace(weights, tensors)


def _replace(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    path.unlink()  # the fixture's folder may share it
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "expected"), [(_not_finite, "model-00002-of-00002.safetensors"), (_vae_not_finite, "vae")]
)
def test_weights_that_are_not_numbers_end_the_animation_and_leave_nothing(
    world: Any, good_media: Path, spoil: Callable[[Path], None], expected: str
) -> None:
    """The worst case: the bad bytes were declared to be the right ones, so no digest gives them away."""
    spoil(world.models_dir / "One-to-All-sandbox")
    world.accept_model_files()
    world.verify_models()
    _submit(world, good_media)

    result = world.animate(REQUEST, raise_on_error=False)

    message = _explained_failure(result, "animation")
    assert expected in message
    assert "not finite" in message
    _assert_nothing_is_left(world, ("animation", "animation_review"))


def _edit_index(change: Callable[[dict[str, str], Path], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        change(index["weight_map"], folder)
        path.unlink()
        path.write_text(json.dumps(index))

    return edit


def _first_shard(weight_map: dict[str, str]) -> str:
    return min(weight_map.values())


def _without_a_shard(weight_map: dict[str, str], _folder: Path) -> None:
    left_out = _first_shard(weight_map)
    for name in [name for name, shard in weight_map.items() if shard == left_out]:
        del weight_map[name]


def _absent_shard(weight_map: dict[str, str], _folder: Path) -> None:
    weight_map[next(iter(weight_map))] = "model-00003-of-00003.safetensors"


def _lost_shard(weight_map: dict[str, str], folder: Path) -> None:
    (folder / _first_shard(weight_map)).unlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (_edit_index(_without_a_shard), "model-00001-of-00002.safetensors belongs to no index"),
        (_edit_index(_absent_shard), "model-00003-of-00003.safetensors is missing"),
        (_edit_index(_lost_shard), "model-00001-of-00002.safetensors is missing"),
        (_not_finite, "sha256"),
    ],
    ids=["shard missing from the index", "index names an absent shard", "shard missing", "other bytes"],
)
def test_a_wrong_checkpoint_is_named_before_anything_starts(
    world: Any, good_media: Path, spoil: Callable[[Path], None], expected: str
) -> None:
    spoil(world.models_dir / "One-to-All-sandbox")
    _submit(world, good_media)

    result = world.animate(REQUEST, raise_on_error=False)

    assert not result.success
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    assert check.check_name == "model_files_complete"
    assert expected in str(check.description)
    assert "one-to-all models" in str(check.description), "the message shows no way out"
    assert _explained_failure(result, "validate_request") == check.description, (
        "the run ends with the check's name alone"
    )
    _assert_nothing_is_left(world, MADE_OF_POSES)

    verification = world.prepare_models(raise_on_error=False)
    assert verification.success, "preparing the models again mends them"
    assert world.animate(REQUEST, clip=spoil is _not_finite, review=False).success


def _submit(world: Any, good: Path, *more: Path, **fields: Any) -> None:
    submit_small(world, good, REQUEST, *more, **{**LARGER_WITH_SOUND, **fields})


def _explained_failure(result: dg.ExecuteInProcessResult, step: str) -> str:
    """The message of the one failed step, which was tried once."""
    assert not result.success
    assert not [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
    (failure,) = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    assert failure.step_key == step
    data = failure.step_failure_data.user_failure_data
    assert data is not None, f"no dg.Failure: {failure.step_failure_data.error}"
    return str(data.description)


def _assert_nothing_is_left(world: Any, assets: tuple[str, ...]) -> None:
    """No object of these assets, under whatever name, and no scratch."""
    objects = [info.key for asset in assets for info in world.objects.list(f"{asset}/{REQUEST}/")]
    assert objects == []
    assert not list(world.objects.list("chunks/"))
    scratch = world.data_dir / "one_to_all_animation_runtime" / "scratch"
    assert not scratch.exists() or not list(scratch.iterdir())
