"""What housekeeping must leave alone, because Dagster's picture of the present rests on it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from libs.storage.manifest import Manifest
from orchestration.housekeeping.latest_outputs import is_latest_in_catalogue
from orchestration.housekeeping.old_runs import runs_in_use
from orchestration.partitions import ANIMATION_REQUESTS
from orchestration.storage.io_manager import DIGEST_METADATA


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def manifest(partition: str | None, digit: str) -> Manifest:
    return Manifest(asset="clip", partition=partition, files=(), digest=digit * 64, created=datetime.now(UTC))


def show(instance: dg.DagsterInstance, partition: str | None, **metadata: Any) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization("clip", partition=partition, metadata=metadata))


def test_content_that_dagster_shows_for_a_partition_stays(instance: dg.DagsterInstance) -> None:
    assert not is_latest_in_catalogue(instance, manifest("a", "1"))
    for partition, digit in (("a", "0"), ("a", "1"), ("b", "2")):
        show(instance, partition, **{DIGEST_METADATA: digit * 64})
    assert is_latest_in_catalogue(instance, manifest("a", "1"))
    assert is_latest_in_catalogue(instance, manifest("b", "2"))
    assert not is_latest_in_catalogue(instance, manifest("a", "0")), "it was, before"
    assert not is_latest_in_catalogue(instance, manifest("b", "1")), "this is another partition's"
    show(instance, "a", other="entry")
    assert not is_latest_in_catalogue(instance, manifest("a", "1"))


def test_the_same_for_an_asset_without_partitions(instance: dg.DagsterInstance) -> None:
    show(instance, None, **{DIGEST_METADATA: "1" * 64})
    assert is_latest_in_catalogue(instance, manifest(None, "1"))
    assert not is_latest_in_catalogue(instance, manifest(None, "2"))


def test_runs_that_made_or_saw_the_newest_of_something_are_in_use(instance: dg.DagsterInstance) -> None:
    @dg.asset(partitions_def=ANIMATION_REQUESTS)
    def clip() -> None: ...

    @dg.asset
    def single(context: dg.AssetExecutionContext) -> None:
        if looks.pop():
            context.log_event(dg.AssetObservation("seen"))

    instance.add_dynamic_partitions(str(ANIMATION_REQUESTS.name), ["a", "gone"])
    ids = [dg.materialize([clip], instance=instance, partition_key=key).run_id for key in ("a", "a", "gone")]
    looks = [False, False, True, True]
    ids += [dg.materialize([single], instance=instance).run_id for _ in range(4)]
    instance.delete_dynamic_partition(str(ANIMATION_REQUESTS.name), "gone")
    assert runs_in_use(instance) == {ids[1], ids[4], ids[6]}, (
        "the newest of a, the last look at seen, the newest of single"
    )
