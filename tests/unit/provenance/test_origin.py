"""What determines a clip: recorded the same way each time, and enough to ask for the clip again."""

import subprocess
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.command_line.requests.trace import request_document
from libs.errors import InputError
from libs.media.video.writer import VideoWriter
from libs.model_repo.verification.lock import LockedFile, RepositoryLock
from libs.one_to_all.options import SamplingOptions
from libs.one_to_all.sampling.approximation import QUALITIES
from libs.one_to_all.sampling.chunk_plan import SMALLER_CHUNK_LENGTHS
from libs.provenance.clip_tag import TAG, clip_tags, read_origin
from libs.provenance.environment import code_state, library_versions
from libs.provenance.origin import OriginFacts, lock_digests
from libs.provenance.record import ClipOrigin, Device, parse_origin
from libs.requests.documents.animation_request import AnimationRequest, ResolvedRequest, parse_request

OPTIONS = SamplingOptions("a puppet", "", 4, 2.0, 1.5)


def resolved(**fields: Any) -> ResolvedRequest:
    given = {"id": "dance", "reference": "a.png", "driver": "b.mp4", "model": "sandbox", **fields}
    return AnimationRequest.model_validate(given).resolve("sandbox")


def origin(request: ResolvedRequest, options: SamplingOptions = OPTIONS) -> ClipOrigin:
    lock = RepositoryLock("sandbox", {"model.safetensors": LockedFile(3, "c" * 64, "a test")})
    device = Device(kind="cpu", name="cpu", dtype="torch.float32")
    return OriginFacts(request, "a" * 64, "b" * 64, "d" * 64, lock, "1", device).origin(options)


def clip_of(found: ClipOrigin, path: Path) -> Path:
    with VideoWriter(path, 16, 16, Fraction(24), metadata=clip_tags(found)) as writer:
        writer.write(np.zeros((16, 16, 3), np.uint8))
    return path


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


@settings(max_examples=15, deadline=None)
@given(
    prompt=TEXT,
    negative_prompt=TEXT,
    seed=st.integers(0, 2**63 - 1),
    guidance=st.none() | st.floats(0, 20),
    align=st.sampled_from(["auto", "yes", "no"]),
    size=st.none() | st.just({"height": 96, "width": 64}),
)
def test_the_mp4_alone_is_enough_to_ask_for_the_clip_again(
    tmp_path_factory: pytest.TempPathFactory, guidance: float | None, **fields: Any
) -> None:
    request = resolved(image_guidance=guidance, **fields)
    clip = clip_of(origin(request), tmp_path_factory.mktemp("clip") / "renamed.mp4")
    restored = read_origin(clip).resolved_request()
    assert restored == request
    document = request_document(restored.clip_fields())
    assert parse_request(document, source="restored").resolve("14b") == request


def test_when_it_runs_is_no_part_of_a_clip() -> None:
    assert origin(resolved(priority=5, when="nightly")).to_json() == origin(resolved()).to_json()


def test_everything_that_determines_the_clip_changes_the_tag() -> None:
    base = origin(resolved())
    other_lengths = SamplingOptions("a puppet", "", 4, 2.0, 1.5, chunk_lengths=SMALLER_CHUNK_LENGTHS)
    assert origin(resolved(prompt="other")).to_json() != base.to_json()
    assert origin(resolved(), other_lengths).to_json() != base.to_json()
    assert origin(resolved(quality="fast")).to_json() != base.to_json()
    assert base.engine["seed"] == 42
    assert base.to_json().isascii()


def test_quality_is_recorded_with_what_it_meant() -> None:
    options = replace(OPTIONS, approximation=QUALITIES["draft"])
    draft = origin(resolved(quality="draft"), options)
    assert draft.request["quality"] == "draft"
    assert draft.engine["approximation"] == asdict(QUALITIES["draft"])
    assert read_back(draft).resolved_request().quality == "draft"


def test_provenance_of_exact_clips_is_unchanged() -> None:
    assert origin(resolved(quality="exact")).to_json() == origin(resolved()).to_json()
    assert "quality" not in origin(resolved()).request
    assert "approximation" not in origin(resolved()).engine


def read_back(recorded: ClipOrigin) -> ClipOrigin:
    return parse_origin(recorded.to_json(), "the tag")


def test_locks_are_compared_by_content() -> None:
    files = {"model.safetensors": LockedFile(3, "c" * 64, "a test")}
    elsewhere = {"model.safetensors": LockedFile(3, "c" * 64, "another hub", "main", "modelscope")}
    changed = {"model.safetensors": LockedFile(3, "e" * 64, "a test")}
    digests = [lock_digests(RepositoryLock("sandbox", entries)) for entries in (files, elsewhere, changed)]
    assert digests[0] == digests[1] != digests[2]
    assert lock_digests(None) == {}


def test_other_clips_say_so(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "plain.mp4", 16, 16, Fraction(24)) as writer:
        writer.write(np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(InputError, match=r"plain\.mp4: carries no record"):
        read_origin(tmp_path / "plain.mp4")
    with VideoWriter(tmp_path / "other.mp4", 16, 16, Fraction(24), metadata={TAG: "made by hand"}) as writer:
        writer.write(np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(InputError, match=r"other\.mp4: holds no provenance .*text: is no JSON"):
        read_origin(tmp_path / "other.mp4")
    newer = origin(resolved()).to_json().replace('"schema_version":1', '"schema_version":2')
    with pytest.raises(InputError, match="schema_version"):
        parse_origin(newer, "newer.mp4")


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_the_commit_and_whether_the_code_differs_from_it(tmp_path: Path) -> None:
    (tmp_path / "libs").mkdir()
    (tmp_path / "libs" / "code.py").write_text("1\n")
    assert code_state(tmp_path) is None
    git(tmp_path, "init")
    assert code_state(tmp_path) is None, "no commit yet"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    clean = code_state(tmp_path)
    assert clean is not None
    assert not clean.dirty
    assert len(clean.commit) == 40
    (tmp_path / "notes.txt").write_text("not code")
    assert code_state(tmp_path) == clean
    (tmp_path / "libs" / "new.py").write_text("2\n")
    changed = code_state(tmp_path)
    assert changed is not None
    assert changed.dirty
    assert code_state(tmp_path / "libs") is None, "a folder inside somebody's checkout is none"


def test_libraries_that_compute_are_named() -> None:
    assert {"python", "torch", "numpy", "av"} <= set(library_versions())
