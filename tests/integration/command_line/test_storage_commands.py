"""``one-to-all storage check``, ``allow-previews`` and ``share``, as processes of their own."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from libs.storage.artifacts import ArtifactFiles, ArtifactStore
from libs.storage.backends.folder import FolderObjectStore
from tests.s3_server import S3Server
from tests.waiting import HANG_SECONDS

REPOSITORY = Path(__file__).resolve().parents[3]
PROGRAM = """
from libs.settings import Settings
Settings.model_config["env_file"] = None  # whatever .env the developer has
from libs.command_line.main import main
main()
"""
ORPHAN = "animation/dance-1/0123456789abcdef/clip.mp4"


def one_to_all(data_dir: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    base = {name: value for name, value in os.environ.items() if not name.startswith("S3_")}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=base | {"DATA_DIR": str(data_dir), "COLUMNS": "200"} | environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def published(store: ArtifactStore, folder: Path) -> str:
    """A stored clip; its key."""
    folder.mkdir()
    (folder / "clip.mp4").write_bytes(b"moving pictures")
    return store.publish("animation", "dance-1", ArtifactFiles(folder)).files[0].key


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(FolderObjectStore(tmp_path / "artifacts"), tmp_path / "cache")


def test_a_damaged_store_from_report_to_repair(store: ArtifactStore, tmp_path: Path) -> None:
    key = published(store, tmp_path / "scratch")
    sound = one_to_all(tmp_path, "storage", "check", "--full")
    assert (sound.returncode, "all 15 bytes read and intact" in sound.stdout) == (0, True), sound.stderr
    assert "3 objects" in sound.stdout
    (store.objects.root / key).write_bytes(b"moving pictureZ")  # type: ignore[attr-defined]
    assert one_to_all(tmp_path, "storage", "check").returncode == 0
    found = one_to_all(tmp_path, "storage", "check", "--full")
    assert found.returncode == 1
    assert "corrupt  animation, partition dance-1: clip.mp4 does not have the recorded digest" in found.stdout
    assert "run: dagster asset materialize -m orchestration.definitions --select animation --partition dance-1" in (
        found.stdout
    )
    document = json.loads(one_to_all(tmp_path, "storage", "check", "--full", "--json").stdout)
    (problem,) = document["problems"]
    assert (problem["kind"], problem["asset"], problem["partition"], problem["key"]) == (
        ("corrupt", "animation", "dance-1", key)
    )
    store.objects.delete(key)
    gone = one_to_all(tmp_path, "storage", "check")
    assert (gone.returncode, "missing  animation, partition dance-1: clip.mp4 is gone" in gone.stdout) == (1, True)


def test_orphans_go_only_with_an_age_limit(store: ArtifactStore, tmp_path: Path) -> None:
    published(store, tmp_path / "scratch")
    for key in (ORPHAN, f"{ORPHAN}-young", "something/else"):
        store.objects.put_bytes(key, b"x" * 1000)
    orphan = tmp_path / "artifacts" / ORPHAN
    long_ago = time.time() - 8 * 86400
    for path in (orphan, tmp_path / "artifacts" / "something" / "else"):
        os.utime(path, (long_ago, long_ago))
    report = one_to_all(tmp_path, "storage", "check")
    assert report.returncode == 0, report.stdout
    assert "orphaned  2 objects" in report.stdout
    assert "not ours  1 objects" in report.stdout
    for arguments, advice in (
        (["--delete-orphans"], "add --older-than 7d"),
        (["--delete-orphans", "--older-than", "47h"], "at least 2 days"),
        (["--older-than", "7d"], "belongs to --delete-orphans"),
        (["--delete-orphans", "--older-than", "a week"], "is not a length of time"),
    ):
        refused = one_to_all(tmp_path, "storage", "check", *arguments)
        assert refused.returncode != 0
        assert advice in refused.stderr, refused.stderr
    assert orphan.exists()
    arguments = ("storage", "check", "--delete-orphans", "--older-than", "7d", "--json")
    document = json.loads(one_to_all(tmp_path, *arguments).stdout)
    assert document["removed"] == [ORPHAN]
    assert not orphan.exists()
    assert store.objects.exists(f"{ORPHAN}-young")
    assert store.objects.exists("something/else")
    assert store.fetch("animation", "dance-1").path("clip.mp4").read_bytes() == b"moving pictures"


def test_older_contents_are_shown_and_go_only_when_asked(store: ArtifactStore, tmp_path: Path) -> None:
    old_key = published(store, tmp_path / "scratch")
    (tmp_path / "scratch" / "clip.mp4").write_bytes(b"newer pictures")
    newest = store.publish("animation", "dance-1", ArtifactFiles(tmp_path / "scratch"))
    nothing = one_to_all(tmp_path, "storage", "prune", "--apply")
    assert (nothing.returncode, nothing.stdout) == (
        0,
        "older contents: 0, files that no manifest names: 0, together 0 bytes: removed\n",
    )
    history = tmp_path / "artifacts" / "animation" / "dance-1" / "manifests"
    long_ago = time.time() - 91 * 86400
    for path in (tmp_path / "artifacts").rglob("*"):
        os.utime(path, (long_ago, long_ago))
    for path in (*history.iterdir(), history.parent / "manifest.json"):
        document = json.loads(path.read_bytes())
        document["created"] = f"2020-01-0{2 if document['digest'] == newest.digest else 1}T00:00:00Z"
        path.write_text(json.dumps(document))
        os.utime(path, (long_ago, long_ago))
    store.objects.put_bytes(ORPHAN, b"x")
    os.utime(tmp_path / "artifacts" / ORPHAN, (long_ago, long_ago))

    looked = one_to_all(tmp_path, "storage", "prune")
    assert looked.returncode == 0, looked.stderr
    assert "older contents: 1, files that no manifest names: 1, together 16 bytes: would be removed" in looked.stdout
    assert "dance-1" in looked.stdout
    assert "run again with --apply" in looked.stderr
    assert "older contents: 0" in one_to_all(tmp_path, "storage", "prune", "--older-than", "92d").stdout
    assert "at least 2 days" in one_to_all(tmp_path, "storage", "prune", "--older-than", "0s").stderr
    assert store.objects.exists(old_key)
    document = json.loads(one_to_all(tmp_path, "storage", "prune", "--apply", "--json").stdout)
    assert [one["keys"] for one in document["superseded"]] == [[old_key]]
    assert (document["orphans"], document["applied"]) == ([ORPHAN], True)
    assert not store.objects.exists(old_key)
    assert one_to_all(tmp_path, "storage", "check", "--full").returncode == 0
    assert store.fetch("animation", "dance-1").path("clip.mp4").read_bytes() == b"newer pictures"


def test_lines_for_a_pipe_are_not_broken_and_a_full_disk_behind_it_is_one_line(tmp_path: Path) -> None:
    environment = {"COLUMNS": "60", "MODELS_DIR": str(tmp_path / "models")}
    verified = one_to_all(tmp_path, "models", "verify", "sandbox", **environment)
    line = next(line for line in verified.stdout.splitlines() if line.startswith("wan_resources: "))
    assert line.endswith("Mend it with `one-to-all models download sandbox`.")
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-c", PROGRAM, "models", "status"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY, check=False)
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


def test_sharing_from_a_folder_prints_the_path(store: ArtifactStore, tmp_path: Path) -> None:
    key = published(store, tmp_path / "scratch")
    assert one_to_all(tmp_path, "share", "dance-1").stdout == f"{tmp_path / 'artifacts' / key}\n"
    unknown = one_to_all(tmp_path, "share", "dance-2")
    assert unknown.returncode == 1
    assert unknown.stderr == "error: dance-2: there is no such request; `one-to-all list` shows those there are\n"
    assert "7d" in one_to_all(tmp_path, "share", "dance-1", "--expires", "8d").stderr
    assert "set S3_ENDPOINT" in one_to_all(tmp_path, "storage", "allow-previews").stderr


@pytest.mark.s3
def test_sharing_from_a_bucket_prints_an_address(
    s3_server: S3Server, s3_bucket: str, s3_client: object, tmp_path: Path
) -> None:
    from libs.storage.backends.s3 import S3ObjectStore

    store = ArtifactStore(S3ObjectStore(s3_client, s3_bucket), tmp_path / "cache")
    published(store, tmp_path / "scratch")
    environment = s3_server.environment(s3_bucket)
    shared = one_to_all(tmp_path, "share", "dance-1", "--expires", "30m", **environment)
    address = shared.stdout.strip()
    assert "X-Amz-Expires=1800" in address
    assert shared.stderr == ""
    with urllib.request.urlopen(address, timeout=HANG_SECONDS) as answer:
        assert answer.read() == b"moving pictures"
    only_said = one_to_all(tmp_path, "storage", "allow-previews", **environment)
    assert "run again with --apply" in only_said.stderr
    assert json.loads(only_said.stdout)["Action"] == ["s3:GetObject"]
    applied = one_to_all(tmp_path, "storage", "allow-previews", "--apply", **environment)
    assert json.loads(applied.stdout)["Statement"] == [json.loads(only_said.stdout)]
    sound = one_to_all(tmp_path, "storage", "check", "--full", "--json", **environment)
    assert json.loads(sound.stdout)["problems"] == []
    assert (sound.returncode, s3_server.secret_key in sound.stdout + sound.stderr) == (0, False)
