"""Model files on a mount that cannot be written to: complete ones are verified and used, and nothing is tried there."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from download_checks import IMPATIENT, SHARD
from local_hub import LocalHub

from libs.errors import ModelFilesError
from libs.model_repo.hubs.download import DownloadReport, download_part
from libs.model_repo.hubs.hub import Hub
from libs.model_repo.layout import READ_ONLY_MODELS_FOLDER, RepositoryLayout, layout_of
from libs.model_repo.operations.quantize import quantize_checkpoint
from libs.model_repo.verification.digests import CACHE_NAME
from libs.model_repo.verification.lock import lock_path, lock_repository, read_lock
from libs.model_repo.verification.report import VerificationReport
from libs.model_repo.verification.verify import verify_repository
from libs.sandbox.repository import write_sandbox_repository
from libs.settings import Settings
from tests.another_user import as_another_user, make_read_only, make_writable, open_folder


@pytest.fixture
def place() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


@pytest.fixture
def settings(place: Path) -> Settings:
    return Settings(models_dir=place / "models", data_dir=place / "data", _env_file=None)


def _names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def _prepare(layout: RepositoryLayout) -> tuple[VerificationReport, set[str]]:
    """What ``prepare_models`` does for a variant made by code."""
    write_sandbox_repository(layout)
    lock = lock_repository(layout, source="made by libs.sandbox")
    return verify_repository(layout, "full"), set(lock.files)


@pytest.mark.parametrize("locked", [True, False])
def test_a_complete_repository_is_verified_and_used(settings: Settings, place: Path, locked: bool) -> None:
    layout = layout_of("sandbox", settings)
    write_sandbox_repository(layout)
    if locked:
        lock_repository(layout)
    before = _names(settings.models_dir)
    make_read_only(settings.models_dir)
    for _ in range(2):
        report, names = as_another_user(_prepare, layout, home=settings.data_dir)
        assert report.state == "complete", report.parts
        assert report.locked
        assert {file.file for file in report.files} == names
    assert _names(settings.models_dir) == before
    (kept,) = (settings.data_dir / READ_ONLY_MODELS_FOLDER).glob("One-to-All-sandbox-*")
    is_written = (settings.data_dir / READ_ONLY_MODELS_FOLDER / CACHE_NAME).is_file()
    assert is_written != locked, "digests that are known already are not written again"
    assert (kept / "one-to-all.lock.json").is_file() != locked

    make_writable(settings.models_dir)
    os.truncate(layout.root / "configuration.json", 3)
    make_read_only(settings.models_dir)
    report = as_another_user(verify_repository, layout, "full", home=settings.data_dir)
    assert report.part("checkpoint").state != "complete", "what is kept elsewhere is compared with"


def test_what_is_not_that_of_this_version_cannot_be_replaced(settings: Settings) -> None:
    layout = layout_of("sandbox", settings)
    settings.models_dir.mkdir()
    make_read_only(settings.models_dir)
    with pytest.raises(ModelFilesError, match=r"models.*: cannot be written to .*MODELS_DIR"):
        as_another_user(write_sandbox_repository, layout, home=settings.data_dir)


def test_fp8_weights_that_were_made_before(settings: Settings) -> None:
    source, target = layout_of("sandbox", settings), layout_of("sandbox-fp8", settings)
    write_sandbox_repository(source)
    lock_repository(source)
    made = quantize_checkpoint(source, target)
    make_read_only(settings.models_dir)
    report = as_another_user(quantize_checkpoint, source, target, home=settings.data_dir)
    assert report.written == ()
    assert report.kept == made.written
    make_writable(settings.models_dir)
    (target.root / made.written[0]).unlink()
    make_read_only(settings.models_dir)
    with pytest.raises(ModelFilesError, match=r"cannot be written to .* not the complete FP8 variant"):
        as_another_user(quantize_checkpoint, source, target, home=settings.data_dir)


def _download(layout: RepositoryLayout, hub: Hub) -> DownloadReport:
    return download_part(layout, "checkpoint", hub, retry=IMPATIENT)


@pytest.mark.parametrize("with_lock", [True, False])
def test_complete_files_of_a_hub(
    settings: Settings, hub: Hub, hub_server: LocalHub, with_lock: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(settings.data_dir / "token"))
    layout = layout_of("1.3b_1", settings)
    _download(layout, hub)
    if not with_lock:  # as files are that another program fetched
        lock_path(layout).unlink()
    served, before = hub_server.total_served, _names(settings.models_dir)
    make_read_only(settings.models_dir)
    report = as_another_user(_download, layout, hub, home=settings.data_dir)
    assert report.fetched == ()
    assert SHARD in report.kept
    assert hub_server.total_served == served
    assert _names(settings.models_dir) == before
    lock = as_another_user(read_lock, layout, home=settings.data_dir)
    assert set(lock.files) == set(report.kept)

    make_writable(settings.models_dir)
    (layout.root / SHARD).unlink()
    make_read_only(settings.models_dir)
    with pytest.raises(ModelFilesError, match=rf"cannot be written to .* 1 files are missing \(first: {SHARD}\)"):
        as_another_user(_download, layout, hub, home=settings.data_dir)
