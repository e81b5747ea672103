"""The jobs that keep store, database and disks small, and their schedules, which a person switches on in the UI.

See ``libs.housekeeping`` for the table of all that is removed, when and by whom.
"""

from collections.abc import Iterable
from datetime import timedelta

import dagster as dg

from libs.housekeeping.media_copies import unneeded_copies
from libs.housekeeping.scratch import old_scratch, remove_old_scratch
from libs.requests.lifecycle.accepted import AcceptedRequests
from libs.requests.lifecycle.archive import RequestArchive
from orchestration.failures import failures_explained
from orchestration.housekeeping.archive import archive_requests, requests_to_archive
from orchestration.housekeeping.latest_outputs import is_latest_in_catalogue
from orchestration.housekeeping.old_runs import delete_runs, superfluous_runs
from orchestration.storage.resources import ScratchResource, SettingsResource, StorageResource

BYTES_PER_GB = 10**9
_NAMES_SHOWN = 50
_RUNS_PER_LINE = 500


class HousekeepingConfig(dg.Config):
    """Look first: what would be removed is listed, and stays."""

    dry_run: bool = False


class CautiousConfig(HousekeepingConfig):
    """Configuration of ops whose removals cannot be undone: by default they only report."""

    dry_run: bool = True


@dg.op
def archive_finished_requests(
    context: dg.OpExecutionContext,
    config: HousekeepingConfig,
    settings: SettingsResource,
    storage: StorageResource,
) -> None:
    """Requests finished ARCHIVE_AFTER_DAYS ago leave the partition set; their artifacts stay in the store."""
    with failures_explained():
        archive = RequestArchive(storage.artifacts())
        older_than = timedelta(days=settings.load().archive_after_days)
        finished = requests_to_archive(context.instance, archive, older_than)
        if not config.dry_run:
            finished = archive_requests(context.instance, archive, finished)
    _tell(context, config, "requests archived", finished)


@dg.op(ins={"archived": dg.In(dg.Nothing)})
def prune_old_runs(context: dg.OpExecutionContext, config: HousekeepingConfig, settings: SettingsResource) -> None:
    """Runs that ended PRUNE_RUNS_AFTER_DAYS ago leave the database, unless a registered partition rests on them."""
    older_than = timedelta(days=settings.load().prune_runs_after_days)
    superfluous = superfluous_runs(context.instance, older_than)
    if not config.dry_run:
        for done in delete_runs(context.instance, superfluous):
            if done % _RUNS_PER_LINE == 0:
                context.log.info(f"{done} of {len(superfluous)} runs deleted")
    _tell(context, config, "runs deleted", superfluous)


@dg.op
def prune_local_files(
    context: dg.OpExecutionContext,
    config: HousekeepingConfig,
    settings: SettingsResource,
    storage: StorageResource,
    scratch: ScratchResource,
) -> None:
    """The artifact cache of this machine shrinks to ARTIFACT_CACHE_MAX_GB; scratch of killed runs goes with age."""
    loaded = settings.load()
    age = timedelta(days=loaded.chunk_max_age_days)
    if config.dry_run:
        _tell(context, config, "scratch folders removed", [path.name for path in old_scratch(scratch.root(), age)])
        return
    removed = remove_old_scratch(scratch.root(), age)
    _tell(context, config, "scratch folders removed", [path.name for path in removed])
    with failures_explained():
        report = storage.artifacts().cache.prune(int(loaded.artifact_cache_max_gb * BYTES_PER_GB))
    context.add_output_metadata(
        {"removed from cache": report.removed, "bytes before": report.bytes_before, "bytes after": report.bytes_after}
    )


@dg.op
def remove_chunks_nobody_needs(
    context: dg.OpExecutionContext,
    config: HousekeepingConfig,
    settings: SettingsResource,
    storage: StorageResource,
) -> None:
    """Chunks of clips that no run came back for within CHUNK_MAX_AGE_DAYS leave the store."""
    from libs.housekeeping.old_chunks import find_old_chunks, remove_old_chunks  # noqa: PLC0415 - loads numpy

    older_than = timedelta(days=settings.load().chunk_max_age_days)
    with failures_explained():
        act = find_old_chunks if config.dry_run else remove_old_chunks
        old = list(act(storage.objects(), older_than))
    _tell(context, config, "clips whose chunks were removed", [chunks.prefix for chunks in old])
    context.add_output_metadata({"bytes": sum(chunks.bytes for chunks in old)})


@dg.op
def remove_media_nobody_needs(
    context: dg.OpExecutionContext, config: HousekeepingConfig, settings: SettingsResource, storage: StorageResource
) -> None:
    """Copies of media of requests whose clips are stored leave the store; each clip has its own in request_media."""
    older_than = timedelta(days=settings.load().chunk_max_age_days)
    objects = storage.objects()
    with failures_explained():
        copies = list(unneeded_copies(objects, AcceptedRequests(objects).media_in_use(), older_than))
        for copy in copies if not config.dry_run else ():
            objects.delete(copy.key)
    _tell(context, config, "copies of media removed", [copy.key for copy in copies])
    context.add_output_metadata({"bytes": sum(copy.size for copy in copies)})


@dg.op
def prune_superseded_artifacts(
    context: dg.OpExecutionContext,
    config: CautiousConfig,
    settings: SettingsResource,
    storage: StorageResource,
) -> None:
    """Contents replaced PRUNE_ARTIFACTS_AFTER_DAYS ago leave the store, and files as old that no manifest names."""
    from libs.housekeeping.prunable import find_prunable, remove_prunable  # noqa: PLC0415 - loads the media libraries

    age, store = timedelta(days=settings.load().prune_artifacts_after_days), storage.artifacts()
    with failures_explained():
        found = find_prunable(store, age, lambda manifest: is_latest_in_catalogue(context.instance, manifest))
        if not config.dry_run:
            found = remove_prunable(store, found, age)
    names = [superseded.content.name for superseded in found.superseded]
    _tell(context, config, "older contents and orphans removed", [*names, *(info.key for info in found.orphans)])
    context.add_output_metadata({"bytes": found.bytes})


def _tell(context: dg.OpExecutionContext, config: HousekeepingConfig, what: str, names: Iterable[str]) -> None:
    listed = list(names)
    if config.dry_run:
        what = f"{what} (dry run: nothing was)"
    context.log.info(f"{what}: {len(listed)}")
    more = [f"and {len(listed) - _NAMES_SHOWN} more"] if len(listed) > _NAMES_SHOWN else []
    context.add_output_metadata({what: len(listed), "names": "\n".join(listed[:_NAMES_SHOWN] + more)})


@dg.job(description="Archive finished requests, prune old runs, and tidy up the disk of the machine it runs on.")
def housekeeping() -> None:
    """Archiving comes first: the runs of archived requests may go."""
    prune_old_runs(archived=archive_finished_requests())
    prune_local_files()
    remove_media_nobody_needs()


@dg.job(description="Tidy up the disk of the machine it runs on: artifact cache, scratch.")
def prune_this_machine() -> None:
    """Prune the caches and scratch of a host on which ``housekeeping`` does not run."""
    prune_local_files()


@dg.job(description="Remove the chunks of abandoned clips.")
def remove_old_chunks() -> None:
    """Remove the chunks of abandoned clips, as one op."""
    remove_chunks_nobody_needs()


@dg.job(description="Remove contents that were replaced long ago from the store. A dry run, unless dry_run is false.")
def prune_artifacts() -> None:
    """Remove older contents of artifacts, as one op."""
    prune_superseded_artifacts()


HOUSEKEEPING_JOBS = [housekeeping, prune_this_machine, remove_old_chunks, prune_artifacts]

HOUSEKEEPING_SCHEDULES = [
    dg.ScheduleDefinition(
        name="housekeeping_daily",
        job=housekeeping,
        cron_schedule="30 4 * * *",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Housekeeping every day at 04:30 UTC.",
    ),
    dg.ScheduleDefinition(
        name="remove_old_chunks_daily",
        job=remove_old_chunks,
        cron_schedule="0 4 * * *",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Removes old chunks every day at 04:00 UTC; not needed where the bucket has a lifecycle rule.",
    ),
    dg.ScheduleDefinition(
        name="prune_artifacts_weekly",
        job=prune_artifacts,
        cron_schedule="0 5 * * 0",
        run_config={"ops": {"prune_superseded_artifacts": {"config": {"dry_run": False}}}},
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Removes contents that were replaced PRUNE_ARTIFACTS_AFTER_DAYS ago, on Sundays at 05:00 UTC.",
    ),
]
