"""Runs executed by this process that the UI shows like those it launched itself.

``execute_in_process`` records no code location with a run, and the UI's first page, the timeline, leaves such runs
out. The interfaces used here are Dagster's private ones (1.13); ``tests/unit/orchestration/test_local_runs.py`` shows
that they work.
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from libs.settings import REPOSITORY_ROOT
from orchestration.dagster_internals import (
    PARTITION_NAME_TAG,
    InMemoryJob,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
    execute_run,
    location_origins_from_yaml_paths,
)


def execute_here(
    definitions: dg.Definitions,
    job_name: str,
    *,
    instance: dg.DagsterInstance,
    partition: str,
    selection: Sequence[dg.AssetKey],
    run_config: dict[str, Any] | None = None,
) -> dg.JobExecutionResult:
    """Execute the assets ``selection`` of a job for one partition, in this process; failures are in the result."""
    job = definitions.resolve_job_def(job_name)
    assets = frozenset(selection)
    run = instance.create_run_for_job(
        job.get_subset(asset_selection=assets),
        run_config=run_config,
        tags={PARTITION_NAME_TAG: partition},
        asset_selection=assets,
        remote_job_origin=_origin(definitions, job_name),
    )
    return execute_run(InMemoryJob(job), run, instance)


def _origin(definitions: dg.Definitions, job_name: str) -> RemoteJobOrigin:
    """The origin by which the UI finds the job: the one code location of ``workspace.yaml``."""
    (location,) = location_origins_from_yaml_paths([str(REPOSITORY_ROOT / "workspace.yaml")])
    return RemoteJobOrigin(RemoteRepositoryOrigin(location, definitions.get_repository_def().name), job_name)
