"""The upstream checkout: absent, at the pin, changed; and looking at it writes nothing there."""

import subprocess
from pathlib import Path

import pytest

from libs.model_repo.files import third_party
from libs.model_repo.files.third_party import CHECKOUT, checkout_state
from libs.settings import REPOSITORY_ROOT


def _git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    done = subprocess.run(["git", *identity, "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of a repository with two commits, the first of which is the pinned one."""
    folder = tmp_path / CHECKOUT
    folder.mkdir(parents=True)
    _git(folder, "init", "-q")
    (folder / "run.py").write_text("print(1)\n")
    (folder / ".gitignore").write_text("*.cache\n")
    _git(folder, "add", ".")
    _git(folder, "commit", "-q", "-m", "one")
    monkeypatch.setattr(third_party, "UPSTREAM_COMMIT", _git(folder, "rev-parse", "HEAD"))
    return folder


def test_absent_is_fine(tmp_path: Path) -> None:
    assert checkout_state(tmp_path).state == "absent"
    (tmp_path / CHECKOUT).mkdir(parents=True)
    state = checkout_state(tmp_path)
    assert state.state == "absent"
    assert state.is_fine


def test_at_the_pin_and_clean(checkout: Path, tmp_path: Path) -> None:
    state = checkout_state(tmp_path)
    assert state.state == "at the pin and clean", state
    assert state.is_fine


def test_changes_are_named_ignored_files_included(checkout: Path, tmp_path: Path) -> None:
    (checkout / "run.py").write_text("print(2)\n")
    (checkout / "weights.bin").write_text("x")
    (checkout / "module.cache").write_text("x")
    state = checkout_state(tmp_path)
    assert state.changed == ("module.cache", "run.py", "weights.bin")
    assert not state.is_fine
    assert "git submodule update" in state.message


def test_another_commit_is_a_change(checkout: Path, tmp_path: Path) -> None:
    _git(checkout, "commit", "-q", "--allow-empty", "-m", "two")
    state = checkout_state(tmp_path)
    assert state.state == "changed"
    assert state.changed == ()


def test_a_folder_without_git_is_a_change(tmp_path: Path) -> None:
    (tmp_path / CHECKOUT).mkdir(parents=True)
    (tmp_path / CHECKOUT / "run.py").touch()
    assert checkout_state(tmp_path).changed == ("run.py",)


def test_looking_writes_nothing(checkout: Path, tmp_path: Path) -> None:
    (checkout / "run.py").touch()  # git would refresh its index after this
    before = {path: path.lstat() for path in checkout.rglob("*")}
    checkout_state(tmp_path)
    after = {path: path.lstat() for path in checkout.rglob("*")}
    assert {path: (s.st_mtime_ns, s.st_size) for path, s in before.items()} == {
        path: (s.st_mtime_ns, s.st_size) for path, s in after.items()
    }


def test_the_submodule_is_recorded_at_the_pin() -> None:
    if not (REPOSITORY_ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    entry = _git(REPOSITORY_ROOT, "ls-files", "--stage", str(CHECKOUT))
    assert entry.split()[:2] == ["160000", third_party.UPSTREAM_COMMIT]
    config = _git(REPOSITORY_ROOT, "config", "-f", ".gitmodules", "--list")
    assert f"submodule.{CHECKOUT}.url=https://github.com/ssj9596/One-to-All-Animation" in config
