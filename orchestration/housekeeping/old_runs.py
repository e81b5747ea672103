"""Old runs leave the database, but for those that Dagster's knowledge of the present rests on.

Deleting a run deletes its events, and with them what it materialized and observed: a clip would count as never made. So
a run stays while one of its events is the newest of an asset and of a partition that is still registered (``archive``).
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.dagster_internals import FINISHED_STATUSES
from orchestration.partitions import ANIMATION_REQUESTS, MODEL_VARIANTS

_AT_ONCE = 500

_Fetch = Callable[..., Any]


def superfluous_runs(instance: dg.DagsterInstance, older_than: timedelta, now: datetime | None = None) -> list[str]:
    """The ids of the runs that ended ``older_than`` ago and that nothing rests on, the newest first."""
    limit = (now or datetime.now(UTC)) - older_than
    old = _all_run_ids(instance, dg.RunsFilter(statuses=FINISHED_STATUSES, updated_before=limit))
    if not old:
        return []
    needed = runs_in_use(instance)
    return [run_id for run_id in old if run_id not in needed]


def runs_in_use(instance: dg.DagsterInstance) -> set[str]:
    """The runs that hold the newest materialization or observation of any asset in any registered partition."""
    registered = {*instance.get_dynamic_partitions(str(ANIMATION_REQUESTS.name)), *MODEL_VARIANTS.get_partition_keys()}
    needed: set[str] = set()
    for key in instance.get_asset_keys():
        for event_type, fetch in (
            (dg.DagsterEventType.ASSET_MATERIALIZATION, instance.fetch_materializations),
            (dg.DagsterEventType.ASSET_OBSERVATION, instance.fetch_observations),
        ):
            newest = instance.event_log_storage.get_latest_storage_id_by_partition(key, event_type)
            if not newest:  # an asset without partitions
                needed.update(record.run_id for record in fetch(key, limit=1).records)
            ids = [storage_id for partition, storage_id in newest.items() if partition in registered]
            needed.update(_runs_of_events(key, ids, fetch))
    return needed


def delete_runs(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> Iterator[int]:
    """Delete runs with their events and captured output; yields how many are done."""
    for done, run_id in enumerate(run_ids, start=1):
        instance.compute_log_manager.delete_logs(prefix=[run_id])
        instance.delete_run(run_id)
        _remove_emptied_database(instance, run_id)
        yield done


def _remove_emptied_database(instance: dg.DagsterInstance, run_id: str) -> None:
    """With SQLite every run has a file of its own, which Dagster empties but leaves; a quarter of a megabyte each."""
    from orchestration.dagster_internals import SqliteEventLogStorage  # noqa: PLC0415 - loads sqlalchemy

    storage = instance.event_log_storage
    if isinstance(storage, SqliteEventLogStorage):
        path = Path(storage.path_for_shard(run_id))
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            path.with_name(name).unlink(missing_ok=True)


def _runs_of_events(key: dg.AssetKey, storage_ids: Sequence[int], fetch: _Fetch) -> Iterator[str]:
    for start in range(0, len(storage_ids), _AT_ONCE):
        page = storage_ids[start : start + _AT_ONCE]
        records = fetch(dg.AssetRecordsFilter(asset_key=key, storage_ids=page), limit=len(page)).records
        yield from (record.run_id for record in records)


def _all_run_ids(instance: dg.DagsterInstance, runs: dg.RunsFilter) -> list[str]:
    """Collected before anything is deleted: the place in the list is kept by the id of a run."""
    found: list[str] = []
    while page := instance.get_run_ids(runs, cursor=found[-1] if found else None, limit=_AT_ONCE):
        found.extend(page)
    return found
