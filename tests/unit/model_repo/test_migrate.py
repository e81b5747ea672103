"""Migrating an old stash: what comes, how, what does not, and conflicts."""

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from libs.errors import DiskFullError, ModelFilesError
from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.model_repo.operations import migrate
from libs.model_repo.operations.migrate import Mode, apply_migration, plan_migration
from libs.model_repo.verification.lock import read_lock
from libs.settings import Settings

_WAN = "Wan2.1-T2V-14B-Diffusers"
_NEEDED = {
    "DWPose/dw.onnx": b"dw",
    "process_checkpoint/det/yolov10m.onnx": b"detector",
    f"{_WAN}/vae/config.json": b"{}",
    f"{_WAN}/text_encoder/model.safetensors": b"text" * 100,
}
_NOT_NEEDED = {
    f"{_WAN}/transformer/weights.safetensors": b"base" * 1000,
    f"{_WAN}/assets/logo.png": b"logo",
    f"{_WAN}/examples/clip.mp4": b"clip",
    f"{_WAN}/._____temp/half": b"half",
    f"{_WAN}/.cache/huggingface/x.metadata": b"x",
    f"{_WAN}/vae/weights.safetensors.incomplete": b"half",
}


@pytest.fixture
def layout(tmp_path: Path) -> RepositoryLayout:
    return layout_of("14b", Settings(models_dir=tmp_path / "models", data_dir=tmp_path, _env_file=None))


@pytest.fixture
def stash(layout: RepositoryLayout) -> Path:
    folder = layout.root.parent / "One-to-All-Animation/pretrained_models"
    for name, content in (_NEEDED | _NOT_NEEDED).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.mark.parametrize("mode", get_args(Mode))
def test_what_is_needed_comes_and_nothing_else(layout: RepositoryLayout, stash: Path, mode: Mode) -> None:
    plan = plan_migration(layout, stash)
    assert not layout.root.exists()
    assert plan.size == sum(map(len, _NEEDED.values()))
    assert plan.skipped_size == sum(map(len, _NOT_NEEDED.values()))
    report = apply_migration(layout, plan, mode)
    found = {path.relative_to(layout.pretrained).as_posix() for path in layout.pretrained.rglob("*") if path.is_file()}
    assert found == set(_NEEDED)
    for name, content in _NEEDED.items():
        path = layout.pretrained / name
        assert path.read_bytes() == content
        assert path.is_symlink() == (mode == "symlink")
        assert path.samefile(stash / name) == (mode != "copy")
    assert len(report.copied) == (len(_NEEDED) if mode == "copy" else 0)
    lock = read_lock(layout)
    assert lock is not None
    assert len(lock.files) == len(_NEEDED)


def test_a_second_time_does_nothing(layout: RepositoryLayout, stash: Path) -> None:
    apply_migration(layout, plan_migration(layout, stash))
    before = {path: path.lstat() for path in layout.pretrained.rglob("*")}
    plan = plan_migration(layout, stash)
    assert plan.steps == ()
    assert len(plan.present) == len(_NEEDED)
    apply_migration(layout, plan)
    assert {path: path.lstat() for path in layout.pretrained.rglob("*")} == before


def test_an_equal_separate_file_is_left_alone(layout: RepositoryLayout, stash: Path) -> None:
    path = layout.pretrained / "DWPose/dw.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"dw")
    apply_migration(layout, plan_migration(layout, stash))
    assert not path.samefile(stash / "DWPose/dw.onnx")


def test_a_conflict_shows_both_digests_and_changes_nothing(layout: RepositoryLayout, stash: Path) -> None:
    path = layout.pretrained / "DWPose/dw.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"other")
    with pytest.raises(ModelFilesError) as caught:
        plan_migration(layout, stash)
    for content in (b"dw", b"other"):
        assert hashlib.sha256(content).hexdigest() in str(caught.value)
    assert [path.name for path in layout.pretrained.rglob("*") if path.is_file()] == ["dw.onnx"]


def test_another_disk_gets_copies(layout: RepositoryLayout, stash: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    report = apply_migration(layout, plan_migration(layout, stash))
    assert len(report.copied) == len(_NEEDED)
    assert (layout.pretrained / "DWPose/dw.onnx").read_bytes() == b"dw"


@pytest.mark.parametrize(
    ("mode", "other_disk", "refused"),
    [("copy", False, True), ("hardlink", True, True), ("hardlink", False, False), ("symlink", True, False)],
)
def test_room_is_checked_first_where_bytes_are_copied(
    layout: RepositoryLayout, stash: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode, other_disk: bool, refused: bool
) -> None:
    plan = plan_migration(layout, stash)
    assert not migrate.on_another_disk(layout, plan)
    assert migrate.on_another_disk(layout, replace(plan, stash=Path("/proc")))
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(migrate.shutil, "disk_usage", lambda _: usage._replace(free=plan.size - 1))
    monkeypatch.setattr(migrate, "on_another_disk", lambda *_: other_disk)
    if refused:
        with pytest.raises(DiskFullError, match="make room"):
            apply_migration(layout, plan, mode)
        assert not list(layout.pretrained.rglob("*"))
    else:
        assert len(apply_migration(layout, plan, mode).linked) == len(_NEEDED)


def test_a_linked_folder_in_the_stash_is_followed_once(layout: RepositoryLayout, stash: Path, tmp_path: Path) -> None:
    (stash / "DWPose").rename(tmp_path / "elsewhere")
    (stash / "DWPose").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/loop").symlink_to(stash)
    apply_migration(layout, plan_migration(layout, stash))
    path = layout.pretrained / "DWPose/dw.onnx"
    assert not path.is_symlink()
    assert path.samefile(tmp_path / "elsewhere/dw.onnx")


def test_no_stash_is_an_error(layout: RepositoryLayout, tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match="no old stash"):
        plan_migration(layout, tmp_path / "nothing")
