"""Verification of a complete repository, and of one for each thing that can be wrong with it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from libs.errors import ModelFilesError
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.verification.lock import lock_repository, read_lock
from libs.model_repo.verification.report import VerificationReport
from libs.model_repo.verification.verify import verify_repository

_SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture
def locked(repository: RepositoryLayout) -> RepositoryLayout:
    lock_repository(repository, source="made by a test")
    return repository


@pytest.mark.parametrize("level", ["fast", "full"])
def test_a_locked_repository_is_complete(locked: RepositoryLayout, level: str) -> None:
    report = verify_repository(locked, level)
    assert report.state == "complete", report
    assert [part.part for part in report.parts] == ["checkpoint", "pose_models", "wan_resources"]
    assert report.warnings == ()
    assert report.locked
    assert report.content_digest is not None
    assert {file.file for file in report.files} == set(read_lock(locked).files)
    for part in report.parts:
        files = [file for file in report.files if file.part == part.part]
        assert (part.file_count, part.size) == (len(files), sum(file.size or 0 for file in files))
        assert part.size > 0
        assert part.command is None
    report.raise_if_not_complete()


def test_a_report_survives_json(locked: RepositoryLayout) -> None:
    report = verify_repository(locked)
    assert VerificationReport.from_json(report.to_json()) == report
    with pytest.raises(ModelFilesError, match="not a verification report"):
        VerificationReport.from_json('{"variant": "sandbox"}')


def test_without_a_lock_fast_warns_and_full_says_what_to_do(repository: RepositoryLayout) -> None:
    fast = verify_repository(repository)
    assert fast.state == "complete"
    assert not fast.locked
    assert "no lock file" in fast.warnings[0]
    full = verify_repository(repository, "full")
    assert full.state == "incomplete"
    assert full.warnings == (), "what to do stands in each part"
    assert full.part("checkpoint").command == "one-to-all models verify sandbox --write-lock"


def test_an_empty_folder_is_incomplete(repository: RepositoryLayout) -> None:
    shutil.rmtree(repository.root)
    report = verify_repository(repository)
    assert {part.state for part in report.parts} == {"incomplete"}
    assert {(part.file_count, part.size) for part in report.parts} == {(0, 0)}
    assert report.warnings == (), "there is nothing a lock could be made of"
    assert not repository.root.exists()
    with pytest.raises(ModelFilesError, match="one-to-all models download sandbox"):
        report.raise_if_not_complete()


def _flip_last_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


@pytest.mark.parametrize(
    ("damage", "state"),
    [(_flip_last_bit, "mismatch"), (_truncate, "incomplete"), (_grow, "mismatch"), (Path.unlink, "incomplete")],
)
@pytest.mark.parametrize("level", ["fast", "full"])
@pytest.mark.parametrize(
    ("file", "part"),
    [
        (_SHARD, "checkpoint"),
        ("model.safetensors.index.json", "checkpoint"),
        ("pretrained_models/process_checkpoint/det/yolov10m.onnx", "pose_models"),
        ("pretrained_models/Wan2.1-T2V-sandbox-Diffusers/vae/diffusion_pytorch_model.safetensors", "wan_resources"),
        ("pretrained_models/Wan2.1-T2V-sandbox-Diffusers/tokenizer/tokenizer.json", "wan_resources"),
    ],
)
def test_damage_of_any_part_is_seen_and_charged_to_it(
    locked: RepositoryLayout, file: str, part: str, level: str, damage: Callable[[Path], None], state: str
) -> None:
    damage(locked.root / file)
    report = verify_repository(locked, level)
    damaged = report.part(part)
    assert damaged.state != "complete"
    if file.endswith((".safetensors", ".onnx")):
        assert damaged.state == state
    assert {other.state for other in report.parts if other.part != part} == {"complete"}
    row = next(row for row in report.files if row.file == file)
    assert row.state != "complete"
    assert row.problem is not None
    assert damaged.command in damaged.message


def test_fast_does_not_hash_large_files_but_notices_writes(
    locked: RepositoryLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.model_repo.verification.verify._HASHED_EVEN_IF_FAST", 0)
    assert verify_repository(locked).state == "complete"
    _flip_last_bit(locked.root / _SHARD)
    report = verify_repository(locked)
    assert report.part("checkpoint").state == "incomplete"
    assert report.part("checkpoint").command == "one-to-all models verify sandbox --level full"
    assert verify_repository(locked, "full").part("checkpoint").state == "mismatch"
    assert verify_repository(locked).part("checkpoint").state == "mismatch"


def test_files_never_hashed_here_are_a_warning_when_fast(
    locked: RepositoryLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.model_repo.verification.verify._HASHED_EVEN_IF_FAST", 0)
    (locked.root.parent / ".digest_cache.json").unlink()
    report = verify_repository(locked)
    assert report.state == "complete"
    assert "never hashed on this machine" in report.warnings[0]
    assert report.content_digest is None


def test_bytes_that_rot_without_a_write_show_when_the_cache_is_not_trusted(locked: RepositoryLayout) -> None:
    path = locked.root / _SHARD
    status = path.stat()
    _flip_last_bit(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert verify_repository(locked, "full", trust_cache=False).part("checkpoint").state == "mismatch"


def test_a_wrong_parameter_is_named(repository: RepositoryLayout) -> None:
    path = repository.root / _SHARD
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("to_q.weight"))
    save_file(tensors | {name: np.zeros((3, 3), np.float16)}, path)
    report = verify_repository(repository)
    assert f"{name} has shape [3, 3], expected [128, 128]" in report.part("checkpoint").message


def test_a_shard_of_no_index_is_a_mismatch(repository: RepositoryLayout) -> None:
    save_file({"x": np.zeros(1, np.float32)}, repository.root / "model-00003-of-00003.safetensors")
    assert "belongs to no index" in verify_repository(repository).part("checkpoint").message


def test_a_tensor_listed_in_the_wrong_shard_is_a_mismatch(repository: RepositoryLayout) -> None:
    index = json.loads(repository.index.read_text())
    name = next(name for name, shard in index["weight_map"].items() if shard == _SHARD)
    index["weight_map"][name] = "model-00002-of-00002.safetensors"
    repository.index.write_text(json.dumps(index))
    assert f"lacks {name}" in verify_repository(repository).part("checkpoint").message


def test_one_file_without_an_index_is_a_checkpoint_too(repository: RepositoryLayout) -> None:
    tensors = {}
    for shard in list(repository.root.glob("model-*.safetensors")):
        tensors |= load_file(shard)
        shard.unlink()
    repository.index.unlink()
    save_file(tensors, repository.root / "model.safetensors")
    assert verify_repository(repository).part("checkpoint").state == "complete"


def test_the_pose_network_may_be_a_folder(repository: RepositoryLayout, graph_writer: Callable[..., None]) -> None:
    repository.pose_estimator.unlink()
    folder = repository.pretrained / "process_checkpoint/pose2d/vitpose_h_wholebody.onnx"
    graph_writer(folder / "end2end.onnx", [1, 3, 256, 192], [1, 133, 64, 48], external=True)
    lock_repository(repository)
    report = verify_repository(repository, "full")
    assert report.state == "complete"
    name = "pretrained_models/process_checkpoint/pose2d/vitpose_h_wholebody.onnx"
    assert {f"{name}/end2end.onnx", f"{name}/weights.bin"} <= {file.file for file in report.files}
    (folder / "weights.bin").unlink()
    assert verify_repository(repository).part("pose_models").state == "incomplete"


def test_a_graph_with_another_interface_is_a_mismatch(
    repository: RepositoryLayout, graph_writer: Callable[..., None]
) -> None:
    graph_writer(repository.pose_estimator, [1, 3, 256, 192], [1, 17, 64, 48])
    part = verify_repository(repository).part("pose_models")
    assert part.state == "mismatch"
    assert "[1, 17, 64, 48], expected [any, 133, 64, 48]" in part.message


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        ("vae/config.json", {"z_dim": 4}, "4 latent channels, 16 expected"),
        ("vae/config.json", {"base_dim": 8}, "has shape"),
        ("text_encoder/config.json", {"d_model": 32}, "has width 32, 64 expected"),
        ("text_encoder/config.json", {"num_layers": 2}, "is missing"),
        ("text_encoder/config.json", {"vocab_size": 3}, "only knows 3"),
        ("scheduler/scheduler_config.json", {"_class_name": "NoSuchScheduler"}, "NoSuchScheduler"),
    ],
)
def test_a_configuration_that_does_not_fit_is_a_mismatch(
    repository: RepositoryLayout, file: str, change: dict[str, object], expected: str
) -> None:
    path = repository.wan / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    part = verify_repository(repository).part("wan_resources")
    assert part.state == "mismatch"
    assert expected in part.message


def test_a_leftover_transformer_is_a_warning_with_its_size(locked: RepositoryLayout) -> None:
    folder = locked.wan / "transformer"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(bytes(12345))
    report = verify_repository(locked, "full")
    assert report.state == "complete"
    assert "12,345 bytes" in report.warnings[0]
    assert "slim sandbox --apply" in report.warnings[0]


def test_a_relock_refuses_other_bytes(locked: RepositoryLayout) -> None:
    _flip_last_bit(locked.root / _SHARD)
    with pytest.raises(ModelFilesError, match="the lock says"):
        lock_repository(locked)
    lock_repository(locked, replace_entries=True)
    assert verify_repository(locked, "full").state == "complete"


def _assert_lock_refused(layout: RepositoryLayout, expected: str) -> None:
    """Reading it raises; a report says it, with the way out, and goes on to the rest."""
    with pytest.raises(ModelFilesError, match=expected):
        read_lock(layout)
    report = verify_repository(layout)
    assert [part.state for part in report.parts] == ["mismatch", "complete", "complete"]
    assert re.search(expected, report.part("checkpoint").message)
    assert report.part("checkpoint").command == "one-to-all models verify sandbox --write-lock"
    assert not report.locked


@pytest.mark.parametrize("text", ["", "{}", '{"format": 1, "variant": "sandbox", "files": {"../x": {}}}'])
def test_a_broken_lock_is_a_mismatch(locked: RepositoryLayout, text: str) -> None:
    (locked.root / "one-to-all.lock.json").write_text(text)
    _assert_lock_refused(locked, "is not a lock file")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"format": 1', '"format": 2', r"is not a lock file \(format 2, expected 1\)"),
        ('"variant": "sandbox"', '"variant": "14b"', "is the lock of variant '14b', expected 'sandbox'"),
        ('"sha256": "', '"sha256": "0', "has no sha256 that can be used"),
        ('"size": ', '"size": 0.', "has no size that can be used"),
    ],
)
def test_a_lock_of_something_else_is_a_mismatch(locked: RepositoryLayout, old: str, new: str, expected: str) -> None:
    path = locked.root / "one-to-all.lock.json"
    path.write_text(path.read_text().replace(old, new, 1))
    _assert_lock_refused(locked, expected)


def test_a_lock_may_not_name_files_outside(locked: RepositoryLayout) -> None:
    path = locked.root / "one-to-all.lock.json"
    content = json.loads(path.read_text())
    content["files"]["../outside.txt"] = next(iter(content["files"].values()))
    path.write_text(json.dumps(content))
    _assert_lock_refused(locked, "leads out of the repository")


def test_importing_is_light() -> None:
    heavy = "torch", "diffusers", "transformers", "onnxruntime", "onnx", "modelscope", "huggingface_hub"
    code = f"import sys, libs.model_repo.verification.verify; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
