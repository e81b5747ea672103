"""Deleting the old stash: only after a verification that covers everything it holds."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from libs.errors import ModelFilesError
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.operations.stash import delete_stash
from libs.model_repo.verification.lock import lock_repository
from libs.model_repo.verification.verify import verify_repository


@pytest.fixture
def stash(repository: RepositoryLayout) -> Path:
    """An old stash whose files are hard links to the repository's, and a base transformer of its own."""
    folder = repository.root.parent / "One-to-All-Animation/pretrained_models"
    shutil.copytree(repository.pretrained, folder, copy_function=os.link)
    transformer = folder / repository.wan.name / "transformer"
    transformer.mkdir()
    (transformer / "weights.safetensors").write_bytes(bytes(10_000))
    lock_repository(repository)
    return folder


def test_a_stash_of_hard_links_goes_after_a_complete_verification(repository: RepositoryLayout, stash: Path) -> None:
    verification = verify_repository(repository, "full")
    report = delete_stash(repository, stash, verification)
    assert stash.is_dir()
    assert report.freed == 10_000 < report.size
    assert delete_stash(repository, stash, verification, apply=True).deleted
    assert list(stash.parent.iterdir()) == []
    assert verify_repository(repository, "full").state == "complete"


def test_an_incomplete_verification_refuses(repository: RepositoryLayout, stash: Path) -> None:
    repository.index.unlink()
    with pytest.raises(ModelFilesError, match="is incomplete; run"):
        delete_stash(repository, stash, verify_repository(repository), apply=True)
    assert stash.is_dir()


def test_a_verification_older_than_a_file_refuses(repository: RepositoryLayout, stash: Path) -> None:
    verification = verify_repository(repository, "full")
    later = repository.index.stat().st_mtime + 3600
    os.utime(repository.index, (later, later))
    with pytest.raises(ModelFilesError, match="changed after the latest verification"):
        delete_stash(repository, stash, verification, apply=True)
    repository.index.unlink()
    with pytest.raises(ModelFilesError, match="vanished after the latest verification"):
        delete_stash(repository, stash, verification, apply=True)


def test_a_repository_of_links_into_the_stash_refuses(repository: RepositoryLayout, stash: Path) -> None:
    path = repository.detector
    path.unlink()
    path.symlink_to(stash / path.relative_to(repository.pretrained))
    with pytest.raises(ModelFilesError, match="is a link into it"):
        delete_stash(repository, stash, verify_repository(repository, "full"), apply=True)


@pytest.mark.parametrize("content", [None, b"other content"])
def test_what_is_nowhere_else_refuses(repository: RepositoryLayout, stash: Path, content: bytes | None) -> None:
    path = stash / "DWPose/dw.onnx"
    if content is None:
        path = stash / "notes.txt"
    path.unlink(missing_ok=True)
    path.write_bytes(content or b"mine")
    with pytest.raises(ModelFilesError, match="are not in"):
        delete_stash(repository, stash, verify_repository(repository, "full"), apply=True)
    assert path.exists()


@pytest.mark.parametrize("other", [{"variant": "14b"}, {"folder": "/elsewhere"}])
def test_a_verification_of_another_repository_refuses(
    repository: RepositoryLayout, stash: Path, other: dict[str, Any]
) -> None:
    with pytest.raises(ModelFilesError, match="not of"):
        delete_stash(repository, stash, replace(verify_repository(repository, "full"), **other), apply=True)
    assert stash.is_dir()


def test_a_verification_that_did_not_see_a_file_refuses(repository: RepositoryLayout, stash: Path) -> None:
    verification = verify_repository(repository, "full")
    with pytest.raises(ModelFilesError, match="changed after the latest verification"):
        delete_stash(repository, stash, replace(verification, files=verification.files[1:]), apply=True)
    assert stash.is_dir()


def test_a_stash_of_equal_copies_goes(repository: RepositoryLayout, stash: Path) -> None:
    shutil.rmtree(stash)
    shutil.copytree(repository.pretrained, stash)
    report = delete_stash(repository, stash, verify_repository(repository, "full"), apply=True)
    assert report.freed == report.size > 0
    assert not stash.exists()


def test_only_a_folder_can_be_a_stash(repository: RepositoryLayout, stash: Path) -> None:
    link, file = stash.with_name("link"), stash.with_name("file")
    link.symlink_to(stash)
    file.write_bytes(b"1")
    verification = verify_repository(repository, "full")
    for place in (link, file, stash.with_name("nothing")):
        with pytest.raises(ModelFilesError, match="is not a folder"):
            delete_stash(repository, place, verification, apply=True)
    assert stash.is_dir()
