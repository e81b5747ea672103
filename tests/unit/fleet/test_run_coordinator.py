"""Which queue a run goes to."""

import dagster as dg
import pytest
from dagster._core.storage.dagster_run import RunOpConcurrency

from orchestration.fleet.run_coordinator import queue_of


def run_in_pools(*pools: str, tags: dict[str, str] | None = None) -> dg.DagsterRun:
    concurrency = RunOpConcurrency(root_key_counts={}, has_unconstrained_root_nodes=True, all_pools=set(pools))
    return dg.DagsterRun(job_name="job", tags=tags, run_op_concurrency=concurrency if pools else None)


@pytest.mark.parametrize(
    ("run", "queue"),
    [
        (run_in_pools("gpu"), "gpu"),
        (run_in_pools("hub", "gpu"), "gpu"),
        (run_in_pools("hub"), "cpu"),
        (run_in_pools(), "cpu"),
        (run_in_pools("gpu", tags={"dagster-celery/queue": "gpu-80gb"}), "gpu-80gb"),
        (run_in_pools(tags={"dagster-celery/queue": "gpu-80gb"}), "gpu-80gb"),
    ],
)
def test_the_queue_follows_the_pools_and_a_named_queue_wins(run: dg.DagsterRun, queue: str) -> None:
    assert queue_of(run) == queue
