"""Slimming: what goes, what must never go, links, and a kill in between."""

import os
import shutil
from pathlib import Path

import pytest

from libs.errors import ModelFilesError
from libs.model_repo.files.repository import wan_name
from libs.model_repo.layout import WAN_PARTS, RepositoryLayout
from libs.model_repo.operations.slim import slim_wan_resources
from libs.model_repo.verification.lock import lock_repository, read_lock, write_lock
from libs.model_repo.verification.verify import verify_repository


@pytest.fixture
def fat(repository: RepositoryLayout) -> RepositoryLayout:
    (repository.wan / "transformer").mkdir()
    (repository.wan / "transformer/weights.safetensors").write_bytes(bytes(10_000))
    (repository.wan / "assets").mkdir()
    (repository.wan / "assets/logo.png").write_bytes(bytes(500))
    (repository.wan / "model_index.json").write_text("{}")
    lock_repository(repository)
    return repository


def _needed(layout: RepositoryLayout) -> dict[Path, bytes]:
    return {
        path: path.read_bytes() for part in WAN_PARTS for path in layout.wan_part(part).rglob("*") if path.is_file()
    }


def test_without_apply_it_only_reports(fat: RepositoryLayout) -> None:
    before = sorted(fat.root.rglob("*"))
    report = slim_wan_resources(fat)
    assert (report.size, report.freed, report.applied) == (10_500, 10_500, False)
    assert [removal.path.name for removal in report.removals] == ["assets", "transformer"]
    assert sorted(fat.root.rglob("*")) == before


def test_with_apply_it_removes_and_the_rest_stays_complete(fat: RepositoryLayout) -> None:
    needed = _needed(fat)
    assert slim_wan_resources(fat, apply=True).size == 10_500
    assert _needed(fat) == needed
    assert sorted(path.name for path in fat.wan.iterdir()) == ["model_index.json", *sorted(WAN_PARTS)]
    assert verify_repository(fat, "full").state == "complete"
    assert slim_wan_resources(fat, apply=True).removals == ()


def test_only_what_went_leaves_the_lock(fat: RepositoryLayout) -> None:
    """Not what merely begins with the same name."""
    lock = read_lock(fat)
    entry = next(iter(lock.files.values()))
    gone, kept = (wan_name(fat, f"{folder}/weights.safetensors") for folder in ("transformer", "transformer_2"))
    write_lock(fat, lock.with_files({gone: entry, kept: entry}))
    slim_wan_resources(fat, apply=True)
    assert read_lock(fat).files.keys() == lock.files.keys() - {gone} | {kept}


@pytest.mark.parametrize("part", WAN_PARTS)
@pytest.mark.parametrize("emptied", [True, False])
def test_nothing_goes_where_something_needed_is_missing(fat: RepositoryLayout, part: str, emptied: bool) -> None:
    shutil.rmtree(fat.wan_part(part))
    if emptied:
        fat.wan_part(part).mkdir()
        (fat.wan_part(part) / "config.json").touch()
    with pytest.raises(ModelFilesError, match=f"{part}: is missing or empty"):
        slim_wan_resources(fat, apply=True)
    assert (fat.wan / "transformer/weights.safetensors").exists()


def test_a_linked_transformer_loses_only_the_link(fat: RepositoryLayout, tmp_path: Path) -> None:
    (fat.wan / "transformer").rename(tmp_path / "base")
    (fat.wan / "transformer").symlink_to(tmp_path / "base")
    report = slim_wan_resources(fat, apply=True)
    assert not (fat.wan / "transformer").is_symlink()
    assert (tmp_path / "base/weights.safetensors").stat().st_size == 10_000
    assert report.freed == 500


def test_a_link_inside_what_goes_is_not_followed(fat: RepositoryLayout, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/precious").write_bytes(b"x")
    (fat.wan / "transformer/link").symlink_to(tmp_path / "outside")
    slim_wan_resources(fat, apply=True)
    assert (tmp_path / "outside/precious").exists()


def test_a_wan_folder_that_leads_out_of_the_repository_is_left_alone(fat: RepositoryLayout, tmp_path: Path) -> None:
    fat.wan.rename(tmp_path / "wan")
    fat.wan.symlink_to(tmp_path / "wan")
    with pytest.raises(ModelFilesError, match="a link out of the repository"):
        slim_wan_resources(fat, apply=True)
    assert (tmp_path / "wan/transformer").exists()


def test_a_needed_file_in_what_would_go_stops_it(fat: RepositoryLayout) -> None:
    source = fat.wan_part("vae") / "diffusion_pytorch_model.safetensors"
    source.rename(fat.wan / "transformer/vae.safetensors")
    source.symlink_to(fat.wan / "transformer/vae.safetensors")
    with pytest.raises(ModelFilesError, match="is needed, but is a link into"):
        slim_wan_resources(fat, apply=True)
    assert source.stat().st_size


def test_hard_links_elsewhere_keep_their_bytes(fat: RepositoryLayout, tmp_path: Path) -> None:
    os.link(fat.wan / "transformer/weights.safetensors", tmp_path / "kept")
    report = slim_wan_resources(fat)
    assert (report.size, report.freed) == (10_500, 500)


def test_a_kill_while_deleting_loses_nothing_and_is_finished_later(
    fat: RepositoryLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = _needed(fat)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            slim_wan_resources(fat, apply=True)
    assert _needed(fat) == needed
    assert verify_repository(fat, "full").state == "complete"
    assert not (fat.wan / "transformer").exists()
    report = slim_wan_resources(fat, apply=True)
    assert report.freed == 10_500
    assert not list(fat.wan.glob(".slimmed-*"))


def test_the_base_transformer_leaves_the_lock(fat: RepositoryLayout) -> None:
    lock = read_lock(fat)
    assert lock is not None
    from dataclasses import replace

    from libs.model_repo.verification.lock import LockedFile, write_lock

    name = f"pretrained_models/{fat.wan.name}/transformer/weights.safetensors"
    write_lock(fat, replace(lock, files={**lock.files, name: LockedFile(10_000, "0" * 64, "test")}))
    slim_wan_resources(fat, apply=True)
    lock = read_lock(fat)
    assert lock is not None
    assert name not in lock.files
