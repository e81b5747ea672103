"""Any sequence of download, kill, migrate, slim, corrupt and verify: complete is never said of bytes that differ.

The hub here is an object of the same interface as the real clients (which have their own tests), so that thousands of
operations take seconds; files, locks, links and digests are real.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from libs.errors import OneToAllError
from libs.model_repo.files.repository import PARTS, Part, files_of_part, path_of
from libs.model_repo.hubs.download import download_part
from libs.model_repo.hubs.hub import Advance, Listing, RemoteFile, partial_path
from libs.model_repo.hubs.transfer import HubBackoff
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.operations.migrate import apply_migration, plan_migration
from libs.model_repo.operations.slim import slim_wan_resources
from libs.model_repo.variants import DWPOSE_SOURCE, POSE_NETWORKS_SOURCE, HubRepository, get_variant
from libs.model_repo.verification.lock import read_lock
from libs.model_repo.verification.report import Level
from libs.model_repo.verification.verify import verify_repository
from libs.settings.values import HubName

_VARIANT = replace(get_variant("sandbox"), checkpoint=HubRepository("test/checkpoint"), wan=HubRepository("test/wan"))
_TRANSFORMER = "transformer/weights.safetensors"


class _Kill(BaseException):
    """The process ends here, as far as the code under test can tell."""


class _MemoryHub:
    name: HubName = "modelscope"
    revisions_are_commits = True
    retries_listings = True

    def __init__(self, repositories: dict[str, dict[str, bytes]]) -> None:
        self.repositories = repositories
        self.bytes_until_kill: int | None = None

    def list_files(self, repo_id: str, revision: str | None) -> Listing:
        files = tuple(
            RemoteFile(path, len(content), hashlib.sha256(content).hexdigest())
            for path, content in self.repositories[repo_id].items()
        )
        return Listing(repo_id, "1" * 40, "1" * 40, files)

    def fetch(self, listing: Listing, file: RemoteFile, folder: Path, advance: Advance) -> Path:
        target = folder / file.path
        partial = partial_path(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        content = self.repositories[listing.repo_id][file.path]
        with partial.open("ab") as stream:
            while stream.tell() < len(content):
                piece = content[stream.tell() : stream.tell() + 100_000]
                if self.bytes_until_kill is not None and self.bytes_until_kill < len(piece):
                    stream.write(piece[: self.bytes_until_kill])
                    raise _Kill
                if self.bytes_until_kill is not None:
                    self.bytes_until_kill -= len(piece)
                stream.write(piece)
                advance(len(piece))
        partial.replace(target)
        return target


def _read(folder: Path, prefix: str = "") -> dict[str, bytes]:
    return {
        prefix + path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def hub_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The sandbox's repository as four hub repositories."""
    from libs.model_repo.layout import layout_of
    from libs.sandbox.repository import write_sandbox_repository
    from libs.settings import Settings

    folder = tmp_path_factory.mktemp("source")
    layout = layout_of("sandbox", Settings(models_dir=folder, data_dir=folder, _env_file=None))
    write_sandbox_repository(layout)
    checkpoint = {path.name: path.read_bytes() for path in layout.root.glob("*.*") if path.is_file()}
    return {
        "test/checkpoint": {name: content for name, content in checkpoint.items() if not name.startswith(".")},
        "test/wan": _read(layout.wan) | {_TRANSFORMER: os.urandom(5000)},
        DWPOSE_SOURCE.repo_id: _read(layout.dwpose, "DWPose/"),
        POSE_NETWORKS_SOURCE.repo_id: _read(layout.pretrained / "process_checkpoint", "process_checkpoint/"),
    }


class Repository(RuleBasedStateMachine):
    """One repository, what may happen to it, and what must hold."""

    hub_files: dict[str, dict[str, bytes]]

    @initialize(complete=st.booleans())
    def start(self, complete: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="properties-"))
        root = self.folder / "models/One-to-All-sandbox"
        pretrained = root / "pretrained_models"
        self.layout = RepositoryLayout(_VARIANT, root, pretrained, pretrained / _VARIANT.wan_folder)
        self.stash = self.folder / "models/stash"
        self.hub = _MemoryHub(self.hub_files)
        for part in PARTS if complete else ():
            self.download(part, False)
            assert verify_repository(self.layout).part(part).state == "complete"

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @rule(part=st.sampled_from(PARTS), base=st.booleans())
    def download(self, part: Part, base: bool) -> None:
        self.hub.bytes_until_kill = None
        policy = HubBackoff(attempts=1)
        download_part(self.layout, part, self.hub, with_base_transformer=base, retry=policy)

    @rule(part=st.sampled_from(PARTS), after=st.integers(0, 3_000_000))
    def killed_download(self, part: Part, after: int) -> None:
        self.hub.bytes_until_kill = after
        with contextlib.suppress(_Kill):
            download_part(self.layout, part, self.hub, workers=1, retry=HubBackoff(attempts=1))

    @rule(damaged=st.booleans(), data=st.data())
    def migrate(self, damaged: bool, data: st.DataObject) -> None:
        shutil.rmtree(self.stash, ignore_errors=True)
        for repository, prefix in (("test/wan", f"{_VARIANT.wan_folder}/"), (DWPOSE_SOURCE.repo_id, "")):
            for name, content in self.hub_files[repository].items():
                path = self.stash / f"{prefix}{name}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        if damaged:
            self._damage(
                data.draw(st.sampled_from(sorted(path for path in self.stash.rglob("*") if path.is_file()))), data
            )
        with contextlib.suppress(OneToAllError):  # a conflict is refused
            apply_migration(self.layout, plan_migration(self.layout, self.stash))

    @rule()
    def slim(self) -> None:
        with contextlib.suppress(OneToAllError):  # refused while something needed is missing
            slim_wan_resources(self.layout, apply=True)

    @precondition(lambda self: self.layout.root.exists())
    @rule(data=st.data(), level=st.sampled_from(["fast", "full"]))
    def corrupt(self, data: st.DataObject, level: Level) -> None:
        files = [path for part in PARTS for path in files_of_part(self.layout, part).values()]
        if files:
            self._damage(data.draw(st.sampled_from(sorted(files))), data)
            self.verify(level)

    @precondition(lambda self: self.layout.root.exists())
    @rule(data=st.data(), level=st.sampled_from(["fast", "full"]), back=st.integers(1, 4000))
    def flip_a_weight(self, data: st.DataObject, level: Level, back: int) -> None:
        """The damage that no header, size or parser shows."""
        files = [path for part in PARTS for path in files_of_part(self.layout, part).values()]
        weights = sorted(path for path in files if path.suffix == ".safetensors" and path.stat().st_size > 2 * back)
        if weights:
            path = data.draw(st.sampled_from(weights))
            content = bytearray(path.read_bytes())
            content[-back] ^= 1
            path.write_bytes(content)
            self.verify(level)

    def _damage(self, path: Path, data: st.DataObject) -> None:
        content = path.read_bytes()
        if path.stat().st_nlink > 1 and data.draw(st.booleans()):
            path.unlink()  # half of the time one name only, half of the time every hard link
        kind = data.draw(st.sampled_from(["flip", "flip", "flip", "cut", "grow", "remove"]))
        if kind == "remove":
            path.unlink(missing_ok=True)
            return
        changed = bytearray(content)
        if kind == "flip" and changed:
            changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "cut":
            del changed[data.draw(st.integers(0, max(len(changed) - 1, 0))) :]
        else:
            changed += b"\0"
        path.write_bytes(changed)

    @rule(level=st.sampled_from(["fast", "full"]))
    def verify(self, level: Level) -> None:
        report = verify_repository(self.layout, level)
        lock = read_lock(self.layout)
        for result in report.parts:
            wrong = self._wrong_files(result.part)
            if result.state == "complete" and lock is not None:
                assert wrong == []
            if wrong and lock is not None:
                assert result.command is not None

    def _wrong_files(self, part: Part) -> list[str]:
        lock = read_lock(self.layout)
        wrong = []
        for name, entry in lock.of_part(part).items() if lock else ():
            path = path_of(self.layout, name)
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != entry.sha256:
                wrong.append(name)
        return wrong

    @invariant()
    def nothing_half_is_under_a_final_name_in_the_lock(self) -> None:
        """Entries that came from the hub have the hub's digests, whatever happened."""
        if not hasattr(self, "layout"):
            return
        lock = read_lock(self.layout)
        for name, entry in lock.files.items() if lock else ():
            files = self.hub_files.get(entry.source, {})
            digests = {hashlib.sha256(content).hexdigest() for content in files.values()}
            assert not files or entry.sha256 in digests, name


@pytest.mark.slow
@pytest.mark.parametrize("budget", [0, 16 * 1024 * 1024], ids=["nothing hashed when fast", "small files hashed"])
def test_complete_is_never_said_of_bytes_that_differ(
    hub_files: dict[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    monkeypatch.setattr("libs.model_repo.verification.verify._HASHED_EVEN_IF_FAST", budget)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    machine: Callable[[], RuleBasedStateMachine] = type("Machine", (Repository,), {"hub_files": hub_files})
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=10,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
