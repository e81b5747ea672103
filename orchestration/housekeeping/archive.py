"""Finished requests leave the set of partitions, so that it stays as small as the work at hand.

See ``libs.requests.lifecycle.archive`` for which requests are finished, and what is stored of them.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import dagster as dg

from libs.requests.lifecycle.archive import RequestArchive
from orchestration.dagster_internals import PARTITION_NAME_TAG
from orchestration.partitions import ANIMATION_REQUESTS, forget_request
from orchestration.requests.runs import UNFINISHED, all_runs


def requests_to_archive(
    instance: dg.DagsterInstance, archive: RequestArchive, older_than: timedelta, now: datetime | None = None
) -> list[str]:
    """The registered requests that were finished ``older_than`` ago, and that no run is busy with."""
    registered = instance.get_dynamic_partitions(str(ANIMATION_REQUESTS.name))
    busy = _partitions_of_unfinished_runs(instance)
    return [request_id for request_id in archive.finished(registered, older_than, now) if request_id not in busy]


def archive_requests(instance: dg.DagsterInstance, archive: RequestArchive, request_ids: Sequence[str]) -> list[str]:
    """Record each request in the archive, then take it out of the partition set and out of the variants' index.

    A request whose archiving was interrupted is still registered, and the next call does all of it again. With many
    requests this takes minutes: one that was submitted or started again meanwhile stays.

    Returns:
        Those that were archived.
    """
    archived = []
    for request_id in request_ids:
        archive.record(request_id)
        if not archive.is_pending(request_id) and not _is_busy(instance, request_id):
            forget_request(instance, request_id)
            archived.append(request_id)
    return archived


def _is_busy(instance: dg.DagsterInstance, request_id: str) -> bool:
    of_request = dg.RunsFilter(statuses=UNFINISHED, tags={PARTITION_NAME_TAG: request_id})
    return bool(instance.get_run_ids(of_request, limit=1))


def _partitions_of_unfinished_runs(instance: dg.DagsterInstance) -> set[str]:
    unfinished = all_runs(instance, dg.RunsFilter(statuses=UNFINISHED))
    return {run.tags[PARTITION_NAME_TAG] for run in unfinished if PARTITION_NAME_TAG in run.tags}
