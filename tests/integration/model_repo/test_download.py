"""Both real clients against the local hub: what a download does when all is well."""

import json
import shutil
from pathlib import Path

import pytest
from download_checks import CHECKPOINT_REPO, IMPATIENT, SHARD, WAN_REPO, assert_complete, wanted
from local_hub import LISTING, Fault, LocalHub

from libs.errors import HubError, HubUnavailableError, InputError, ModelFilesError
from libs.model_repo.files.repository import PARTS, Part
from libs.model_repo.files.shared_files import sibling_layouts
from libs.model_repo.hubs.download import download_part
from libs.model_repo.hubs.hub import Hub, open_hub
from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.model_repo.verification.lock import read_lock
from libs.settings import Settings


@pytest.mark.parametrize("part", PARTS)
def test_a_first_download_brings_exactly_what_is_needed(
    layout: RepositoryLayout, hub: Hub, hub_server: LocalHub, part: Part
) -> None:
    report = download_part(layout, part, hub, retry=IMPATIENT)
    assert_complete(layout, hub_server, part)
    assert set(report.fetched) == set(wanted(layout, part, hub_server))
    assert report.bytes_fetched == sum(map(len, wanted(layout, part, hub_server).values())) == hub_server.total_served
    lock = read_lock(layout)
    assert lock is not None
    assert {(entry.hub, entry.revision) for entry in lock.files.values()} == {
        (hub.name, revision) for revision in report.revisions.values()
    }


def test_a_second_download_fetches_nothing(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    before, served = (layout.root / SHARD).stat(), hub_server.total_served
    report = download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert report.fetched == ()
    assert hub_server.total_served == served
    assert (layout.root / SHARD).stat() == before


def test_files_that_are_there_are_proven_and_kept(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    layout.root.mkdir(parents=True)
    (layout.root / SHARD).write_bytes(wanted(layout, "checkpoint", hub_server)[SHARD])
    other = "model-00002-of-00002.safetensors"
    (layout.root / other).write_bytes(bytes(700_000))
    report = download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert SHARD in report.kept
    assert other in report.fetched
    assert hub_server.requests_of(SHARD) == []
    assert_complete(layout, hub_server)


def test_a_damaged_file_is_fetched_again(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    (layout.root / SHARD).write_bytes(bytes(700_000))
    assert download_part(layout, "checkpoint", hub, retry=IMPATIENT).fetched == (SHARD,)
    assert_complete(layout, hub_server)


def test_progress_counts_every_byte_once(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    calls: list[tuple[str, int, int | None]] = []
    download_part(
        layout, "checkpoint", hub, retry=IMPATIENT, progress=lambda *call: calls.append((call[0], call[1], call[2]))
    )
    size = sum(map(len, wanted(layout, "checkpoint", hub_server).values()))
    downloading = [call for call in calls if call[0] == "downloading"]
    assert downloading[0] == ("downloading", 0, size)
    assert downloading[-1] == ("downloading", size, size)
    assert max(done for _, done, _ in downloading) == size


def test_the_base_transformer_comes_only_when_asked_for(
    layout: RepositoryLayout, hub: Hub, hub_server: LocalHub
) -> None:
    download_part(layout, "wan_resources", hub, retry=IMPATIENT)
    assert not (layout.wan / "transformer").exists()
    download_part(layout, "wan_resources", hub, retry=IMPATIENT, with_base_transformer=True)
    assert (layout.wan / "transformer/diffusion_pytorch_model.safetensors").stat().st_size == 90_000
    download_part(layout, "wan_resources", hub, retry=IMPATIENT)
    assert (layout.wan / "transformer/diffusion_pytorch_model.safetensors").exists()


def test_files_of_another_variant_are_linked_not_fetched(
    settings: Settings, layout: RepositoryLayout, hub: Hub, hub_server: LocalHub
) -> None:
    download_part(layout, "wan_resources", hub, retry=IMPATIENT)
    served = hub_server.total_served
    other = layout_of("1.3b_2", settings)
    report = download_part(other, "wan_resources", hub, retry=IMPATIENT, siblings=sibling_layouts(other, settings))
    assert_complete(other, hub_server, "wan_resources")
    weights = "vae/diffusion_pytorch_model.safetensors"
    assert (other.wan / weights).samefile(layout.wan / weights)
    assert any(name.endswith(weights) for name in report.linked)
    assert hub_server.total_served - served < 1000  # only small files, whose sha256 Hugging Face does not list


def test_a_damaged_file_of_another_variant_is_not_linked(
    settings: Settings, layout: RepositoryLayout, hub: Hub, hub_server: LocalHub
) -> None:
    download_part(layout, "wan_resources", hub, retry=IMPATIENT)
    (layout.wan / "vae/diffusion_pytorch_model.safetensors").write_bytes(bytes(50_000))
    other = layout_of("1.3b_2", settings)
    download_part(other, "wan_resources", hub, retry=IMPATIENT, siblings=[layout])
    assert_complete(other, hub_server, "wan_resources")


def test_offline_and_complete_works(
    layout: RepositoryLayout, hub: Hub, hub_server: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    requests = len(hub_server.requests)
    assert download_part(layout, "checkpoint", hub, retry=IMPATIENT).offline
    assert len(hub_server.requests) == requests
    (layout.root / SHARD).write_bytes(bytes(700_000))
    with pytest.raises(HubUnavailableError, match=f"first: {SHARD}"):
        download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    with pytest.raises(HubUnavailableError, match=r"pose_models of 1\.3b_1 is not complete"):
        download_part(layout, "pose_models", hub, retry=IMPATIENT)


def test_no_route_and_complete_works(
    layout: RepositoryLayout, hub: Hub, hub_server: LocalHub, settings: Settings
) -> None:
    download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    nowhere = open_hub(settings.model_copy(update={"model_hub": hub.name, "model_hub_endpoint": "http://127.0.0.1:9"}))
    assert download_part(layout, "checkpoint", nowhere, retry=IMPATIENT).offline
    (layout.root / SHARD).unlink()
    with pytest.raises(HubUnavailableError, match="no hub can be asked"):
        download_part(layout, "checkpoint", nowhere, retry=IMPATIENT)


def test_the_other_hub_may_take_over(
    layout: RepositoryLayout, hub: Hub, hub_server: LocalHub, settings: Settings
) -> None:
    download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    (layout.root / SHARD).unlink()
    name = {"modelscope": "huggingface", "huggingface": "modelscope"}[hub.name]
    other = open_hub(settings.model_copy(update={"model_hub": name, "model_hub_endpoint": hub_server.url}))
    assert download_part(layout, "checkpoint", other, retry=IMPATIENT).fetched == (SHARD,)
    assert_complete(layout, hub_server)


def test_a_new_revision_is_taken_only_when_asked_for(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    old = dict(hub_server.repositories[CHECKPOINT_REPO].files)
    changed = {SHARD: old[SHARD][::-1], "model-00003-of-00003.safetensors": b"new" * 1000}
    kept = {name: content for name, content in old.items() if name != "model-00002-of-00002.safetensors"}
    hub_server.add(CHECKPOINT_REPO, kept | changed)
    with pytest.raises(HubError, match=r"--update|not on the hub"):
        download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert (layout.root / SHARD).read_bytes() == old[SHARD]
    download_part(layout, "checkpoint", hub, revision="master", update=True, retry=IMPATIENT)
    assert_complete(layout, hub_server)


def test_variants_without_a_hub_say_what_makes_them(settings: Settings, hub: Hub) -> None:
    with pytest.raises(InputError, match=r"quantize 1\.3b_1"):
        download_part(layout_of("1.3b_1-fp8", settings), "checkpoint", hub)
    with pytest.raises(InputError, match="make demo"):
        download_part(layout_of("sandbox", settings), "checkpoint", hub)


def test_a_file_where_a_folder_should_be_is_named(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    layout.pose_estimator.parent.mkdir(parents=True)
    layout.pose_estimator.write_bytes(b"a single file")
    with pytest.raises(ModelFilesError, match="a file where the hub has a folder"):
        download_part(layout, "pose_models", hub, retry=IMPATIENT)
    assert layout.pose_estimator.read_bytes() == b"a single file"


def test_a_symbolic_link_is_replaced_not_written_through(
    layout: RepositoryLayout, hub: Hub, hub_server: LocalHub, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(b"precious")
    layout.root.mkdir(parents=True)
    (layout.root / SHARD).symlink_to(outside)
    download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert outside.read_bytes() == b"precious"
    assert_complete(layout, hub_server)


def test_a_lost_lock_file_is_rewritten_from_verified_files(
    layout: RepositoryLayout, hub: Hub, hub_server: LocalHub
) -> None:
    download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    (layout.root / "one-to-all.lock.json").unlink()
    shutil.rmtree(layout.root / ".download", ignore_errors=True)
    assert download_part(layout, "checkpoint", hub, retry=IMPATIENT).fetched == ()
    assert_complete(layout, hub_server)


def test_listings_are_retried(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    hub_server.fail(LISTING, Fault(status=503))
    download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert_complete(layout, hub_server)


def test_the_lock_is_plain_json(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    download_part(layout, "wan_resources", hub, retry=IMPATIENT)
    content = json.loads((layout.root / "one-to-all.lock.json").read_text())
    entry = content["files"]["pretrained_models/Wan2.1-T2V-1.3B-Diffusers/vae/config.json"]
    assert entry["source"] == WAN_REPO
    assert entry["size"] == 2
    assert len(entry["sha256"]) == 64
