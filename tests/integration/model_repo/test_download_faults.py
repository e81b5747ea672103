"""Both real clients against a hub that misbehaves.

After every fault: what stands under final names is complete and correct, and the error tells what to do.
"""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from download_checks import (
    CHECKPOINT_REPO,
    IMPATIENT,
    SHARD,
    WAN_REPO,
    assert_complete,
    assert_nothing_wrong_stands,
)
from local_hub import LISTING, Fault, LocalHub

from libs.errors import DiskFullError, HubError, HubUnavailableError
from libs.model_repo.hubs.download import download_part
from libs.model_repo.hubs.hub import Hub, open_hub
from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.model_repo.verification.lock import read_lock
from libs.settings import Settings
from tests.waiting import HANG_SECONDS, wait_until

_PROJECT = Path(__file__).resolve().parents[3]
_LARGE = 24 * 1024 * 1024  # one client writes pieces of 10 MiB: a file must be larger for a kill in its middle
_DOWNLOAD = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from libs.model_repo.hubs.download import download_part
    from libs.model_repo.hubs.hub import open_hub
    from libs.model_repo.layout import layout_of
    from libs.settings import Settings

    name, url, models = sys.argv[1:]
    settings = Settings(
        models_dir=Path(models), data_dir=Path(models), model_hub=name, model_hub_endpoint=url, _env_file=None
    )
    report = download_part(layout_of("1.3b_1", settings), "checkpoint", open_hub(settings))
    print(len(report.fetched))
    """
)


def _download_process(hub: Hub, server: LocalHub, layout: RepositoryLayout) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _DOWNLOAD, hub.name, server.url, str(layout.root.parent)],
        cwd=_PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _large_shard(server: LocalHub) -> bytes:
    files = dict(server.repositories[CHECKPOINT_REPO].files)
    files[SHARD] = os.urandom(_LARGE)
    server.add(CHECKPOINT_REPO, files)
    return files[SHARD]


def test_a_killed_download_carries_on_in_the_middle_of_the_file(
    layout: RepositoryLayout, hub: Hub, hub_server: LocalHub
) -> None:
    _large_shard(hub_server)
    fault = Fault(hold_after=16 * 1024 * 1024)
    hub_server.fail(SHARD, fault)
    process = _download_process(hub, hub_server, layout)
    try:
        assert fault.reached.wait(HANG_SECONDS)
        wait_until("some of it is on disk", lambda: _partial_bytes(layout), pause=0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        fault.release.set()
    received = _partial_bytes(layout)
    assert 0 < received < _LARGE
    assert not (layout.root / SHARD).exists()
    assert_nothing_wrong_stands(layout, hub_server)
    download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert_complete(layout, hub_server)
    assert hub_server.requests_of(SHARD)[-1] == f"bytes={received}-"


def _partial_bytes(layout: RepositoryLayout) -> int:
    return sum(path.stat().st_size for path in layout.root.rglob(f"{SHARD}.incomplete"))


def test_a_damaged_partial_file_is_thrown_away(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    hub_server.always[SHARD] = Fault(status=500)
    with pytest.raises(HubUnavailableError):
        download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    (staging,) = (layout.root / ".download").iterdir()
    (staging / f"{SHARD}.incomplete").write_bytes(b"not what the hub has")
    hub_server.always.clear()
    download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert_complete(layout, hub_server)


def test_a_flipped_byte_never_arrives(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    content = bytearray(hub_server.repositories[CHECKPOINT_REPO].files[SHARD])
    content[12345] ^= 1
    hub_server.fail(SHARD, Fault(content=bytes(content)))
    download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert_complete(layout, hub_server)


@pytest.mark.slow
def test_a_hub_that_always_flips_a_byte_is_refused(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    content = bytearray(hub_server.repositories[CHECKPOINT_REPO].files[SHARD])
    content[12345] ^= 1
    hub_server.always[SHARD] = Fault(content=bytes(content))
    with pytest.raises(HubError, match=rf"{SHARD}.*MODEL_HUB"):
        download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert not (layout.root / SHARD).exists()
    assert_nothing_wrong_stands(layout, hub_server)


def test_a_small_file_with_other_bytes_is_refused(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    """Hugging Face lists no sha256 for small files: git's digest must tell."""
    name = "configuration.json"
    content = hub_server.repositories[CHECKPOINT_REPO].files[name]
    hub_server.fail(name, Fault(content=bytes(len(content))))
    download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert_complete(layout, hub_server)


def test_a_truncated_shard_never_arrives(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    content = hub_server.repositories[CHECKPOINT_REPO].files[SHARD]
    hub_server.fail(SHARD, Fault(content=content[:-1000]))
    download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert_complete(layout, hub_server)


@pytest.mark.slow
def test_a_hub_that_always_truncates_is_refused(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    content = hub_server.repositories[CHECKPOINT_REPO].files[SHARD]
    hub_server.always[SHARD] = Fault(content=content[:-1000])
    with pytest.raises(HubError, match=SHARD):
        download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert not (layout.root / SHARD).exists()
    assert_nothing_wrong_stands(layout, hub_server)


def test_a_shard_that_is_listed_but_missing_is_named(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    hub_server.always[SHARD] = Fault(status=404)
    with pytest.raises(HubError, match=rf"{SHARD}: is not on the hub \(404\)") as caught:
        download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert not caught.value.retryable
    assert_nothing_wrong_stands(layout, hub_server)


@pytest.mark.parametrize("change", ["other bytes", "a missing shard", "an extra shard"])
def test_other_files_for_the_same_revision_are_an_error(
    layout: RepositoryLayout, hub: Hub, hub_server: LocalHub, change: str
) -> None:
    download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    repository = hub_server.repositories[CHECKPOINT_REPO]
    good = dict(repository.files)
    if change == "other bytes":
        repository.files[SHARD] = good[SHARD][::-1]
    elif change == "a missing shard":
        del repository.files[SHARD]
    else:
        repository.files["model-00003-of-00003.safetensors"] = b"x" * 5000
    (layout.root / "configuration.json").unlink()
    with pytest.raises(HubError, match="a revision never changes") as caught:
        download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert not caught.value.retryable
    repository.files = good
    assert_nothing_wrong_stands(layout, hub_server)


def test_an_extra_file_that_is_not_needed_is_not_fetched(
    layout: RepositoryLayout, hub: Hub, hub_server: LocalHub
) -> None:
    hub_server.repositories[CHECKPOINT_REPO].files["optimizer.bin"] = b"x" * 5000
    download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert hub_server.requests_of("optimizer.bin") == []
    assert_complete(layout, hub_server)


@pytest.mark.parametrize("status", [401, 404])
def test_a_refused_listing_says_what_to_do(
    layout: RepositoryLayout, hub: Hub, hub_server: LocalHub, status: int
) -> None:
    hub_server.always[LISTING] = Fault(status=status)
    way_out = {401: "MODEL_HUB_TOKEN", 404: "not on the hub"}[status]
    with pytest.raises(HubError, match=way_out) as caught:
        download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert not caught.value.retryable
    assert CHECKPOINT_REPO in str(caught.value)


def test_a_token_opens_the_door_and_is_never_shown(layout: RepositoryLayout, hub: Hub, settings: Settings) -> None:
    with LocalHub(token="s3cret-token") as server:
        server.add(CHECKPOINT_REPO, {"model.safetensors": b"x" * 5000, "configuration.json": b"{}"})
        configured = {"model_hub": hub.name, "model_hub_endpoint": server.url}
        with pytest.raises(HubError, match=r"401|404") as caught:
            download_part(layout, "checkpoint", open_hub(settings.model_copy(update=configured)), retry=IMPATIENT)
        assert "s3cret" not in str(caught.value)
        with_token = Settings(
            **settings.model_dump() | configured | {"model_hub_token": "s3cret-token"}, _env_file=None
        )
        download_part(layout, "checkpoint", open_hub(with_token), retry=IMPATIENT)
        assert "s3cret" not in (layout.root / "one-to-all.lock.json").read_text()


def test_too_many_requests_are_waited_out(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    hub_server.fail(SHARD, Fault(status=429, headers={"Retry-After": "2"}))
    started = time.monotonic()
    download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert time.monotonic() - started >= 2  # a busy machine only makes it longer
    assert_complete(layout, hub_server)


def test_a_server_error_then_success(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    hub_server.fail(SHARD, Fault(status=500))
    download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert_complete(layout, hub_server)


def test_a_server_that_stays_broken_is_worth_another_run(
    layout: RepositoryLayout, hub: Hub, hub_server: LocalHub
) -> None:
    hub_server.always[SHARD] = Fault(status=500)
    with pytest.raises(HubUnavailableError, match=SHARD) as caught:
        download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert caught.value.retryable
    assert_nothing_wrong_stands(layout, hub_server)


def test_a_connection_cut_in_mid_body_is_resumed(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    hub_server.fail(SHARD, Fault(cut_after=400_000), Fault(cut_after=100_000))
    download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert_complete(layout, hub_server)
    assert len(hub_server.requests_of(SHARD)) == 3


def test_a_slow_trickle_arrives(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    hub_server.fail(SHARD, Fault(slow=0.05, piece=30_000))
    download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert_complete(layout, hub_server)


def test_a_redirecting_mirror(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub, settings: Settings) -> None:
    with LocalHub() as mirror:
        for path in (LISTING, SHARD, "model-00002-of-00002.safetensors"):
            mirror.always[path] = Fault(redirect=hub_server.url)
        for path in ("configuration.json", "model.safetensors.index.json"):
            mirror.always[path] = Fault(redirect=hub_server.url)
        update = {"model_hub": hub.name, "model_hub_endpoint": mirror.url}
        download_part(layout, "checkpoint", open_hub(settings.model_copy(update=update)), retry=IMPATIENT)
    assert_complete(layout, hub_server)


@pytest.mark.parametrize("name", ["../outside.safetensors", "model/../../x.safetensors", "/etc/model.safetensors"])
def test_a_listing_that_leads_out_of_the_folder_is_refused(
    layout: RepositoryLayout, hub: Hub, hub_server: LocalHub, name: str
) -> None:
    hub_server.repositories[CHECKPOINT_REPO].files[name] = b"x" * 5000
    with pytest.raises(HubError, match="leads out of the repository"):
        download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert hub_server.requests == []
    assert not list(layout.root.parent.rglob("*outside*"))


def test_too_little_room_is_found_before_the_first_byte(
    layout: RepositoryLayout, hub: Hub, hub_server: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(
        "libs.model_repo.hubs.download.shutil.disk_usage", lambda _: usage._replace(free=70_000_000 - 2)
    )
    with pytest.raises(DiskFullError, match="make room or set MODELS_DIR"):
        _large_shard(hub_server)
        download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert hub_server.requests == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if done.returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up_keeps_what_came(
    small_disk: Path, hub: Hub, hub_server: LocalHub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(
        "libs.model_repo.hubs.download.shutil.disk_usage", lambda _: usage
    )  # someone else fills the disk
    layout = layout_of("1.3b_1", settings.model_copy(update={"models_dir": small_disk}))
    with pytest.raises(DiskFullError, match="the disk is full; make room") as caught:
        download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert caught.value.retryable
    assert_nothing_wrong_stands(layout, hub_server)
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert_complete(layout, hub_server)


def test_two_processes_share_one_repository(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    hub_server.always[SHARD] = Fault(slow=0.02, piece=30_000)
    processes = [_download_process(hub, hub_server, layout) for _ in range(2)]
    outputs = [process.communicate(timeout=HANG_SECONDS) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sorted(output.strip() for output, _ in outputs) == ["0", "4"]
    assert len(hub_server.requests_of(SHARD)) == 1
    assert_complete(layout, hub_server)


def test_one_file_that_fails_does_not_undo_the_others(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    name = "tokenizer/tokenizer.json"
    hub_server.always[name] = Fault(status=404)
    with pytest.raises(HubError):
        download_part(layout, "wan_resources", hub, retry=IMPATIENT, workers=1)
    lock = read_lock(layout)
    assert lock is not None
    proven = set(lock.files)
    assert proven
    hub_server.always.clear()
    report = download_part(layout, "wan_resources", hub, retry=IMPATIENT)
    assert not proven & set(report.fetched)
    assert_complete(layout, hub_server, "wan_resources")
    assert WAN_REPO in report.revisions
