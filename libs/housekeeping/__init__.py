"""What is removed when, and by whom: of the store, of Dagster's database, and of the disks of workers.

``REMOVALS`` is the table; the modules of this package find and remove. The jobs are in ``orchestration.housekeeping``,
with what only Dagster knows: which runs and partitions may go. Everything that the table does not name stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Removal:
    """One kind of thing that goes.

    Attributes:
        what: for people.
        where: a prefix of the store, or a place.
        when: what must hold.
        setting: the age or size, a field of ``Settings``.
        job: of Dagster, with its op: ``job/op``.
        code: the module that finds and removes it.
        also: what else removes it.
    """

    what: str
    where: str
    when: str
    setting: str
    job: str
    code: str
    also: str | None = None


REMOVALS: Sequence[Removal] = (
    Removal(
        "registered requests",
        "Dagster's partition set",
        "clip and review are stored for so long, and no run is busy with it; its record stays in archive/",
        "archive_after_days",
        "housekeeping/archive_finished_requests",
        "orchestration.housekeeping.archive",
    ),
    Removal(
        "runs and their events",
        "Dagster's database",
        "ended so long ago, and no event of it is the newest of a registered partition",
        "prune_runs_after_days",
        "housekeeping/prune_old_runs",
        "orchestration.housekeeping.old_runs",
    ),
    Removal(
        "copies of artifacts",
        "artifact_cache of each machine",
        "together they are larger; the least recently used go first",
        "artifact_cache_max_gb",
        "housekeeping/prune_local_files",
        "libs.storage.cache",
        also="the job prune_this_machine, where housekeeping does not run",
    ),
    Removal(
        "scratch of killed runs",
        "scratch of each machine",
        "nothing was written there for so long",
        "chunk_max_age_days",
        "housekeeping/prune_local_files",
        "libs.housekeeping.scratch",
        also="the job prune_this_machine, where housekeeping does not run",
    ),
    Removal(
        "copies of media of accepted requests",
        "requests/media/",
        "no request without a clip needs them, and they are so old",
        "chunk_max_age_days",
        "housekeeping/remove_media_nobody_needs",
        "libs.housekeeping.media_copies",
    ),
    Removal(
        "chunks of clips given up",
        "chunks/",
        "the newest chunk of the clip is so old",
        "chunk_max_age_days",
        "remove_old_chunks/remove_chunks_nobody_needs",
        "libs.housekeeping.old_chunks",
        also="a lifecycle rule of the bucket; those of a stored clip go with its run",
    ),
    Removal(
        "older contents of artifacts, and files that no manifest names",
        "the store",
        "replaced, or left, so long ago, and nothing that stays refers to them",
        "prune_artifacts_after_days",
        "prune_artifacts/prune_superseded_artifacts",
        "libs.housekeeping.prunable",
        also="one-to-all storage prune --apply",
    ),
)
