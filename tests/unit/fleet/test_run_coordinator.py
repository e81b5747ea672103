"""Which queue a run goes to, and which run is not queued."""

from typing import Any
from unittest.mock import Mock

import dagster as dg
import pytest
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.storage.dagster_run import RunOpConcurrency
from dagster._core.utils import make_new_run_id

from orchestration.fleet.run_coordinator import FleetRunCoordinator, queue_of
from orchestration.policies import CONTENT_TAG

Status = dg.DagsterRunStatus
LOCATION = GrpcServerCodeLocationOrigin(host="localhost", port=4266, location_name="one_to_all")
ORIGIN = RemoteJobOrigin(RemoteRepositoryOrigin(LOCATION, "__repository__"), "animate")


def new_run(
    status: dg.DagsterRunStatus = Status.NOT_STARTED, selection: dict[str, Any] | None = None, **tags: str
) -> dg.DagsterRun:
    return dg.DagsterRun(
        "animate", make_new_run_id(), tags=tags, status=status, remote_job_origin=ORIGIN, **(selection or {})
    )


REVIEW_AGAIN: list[dict[str, Any]] = [
    {"asset_selection": {dg.AssetKey("animation_review")}},
    {"step_keys_to_execute": ["animation_review"]},  # as a retry does
]


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


@pytest.mark.parametrize(
    ("other_tags", "other_status", "is_queued"),
    [
        ({}, Status.QUEUED, False),
        ({}, Status.STARTED, False),
        ({}, Status.STARTING, False),
        ({}, Status.NOT_STARTED, True),  # two that are submitted at the same moment must not drop each other
        ({}, Status.CANCELING, True),
        ({}, Status.FAILURE, True),
        ({CONTENT_TAG: "other"}, Status.STARTED, True),
        ({"dagster/partition": "other"}, Status.STARTED, True),
    ],
)
def test_a_run_whose_clip_is_on_its_way_is_not_queued(
    other_tags: dict[str, str], other_status: dg.DagsterRunStatus, is_queued: bool
) -> None:
    tags = {"dagster/partition": "anna", CONTENT_TAG: "new"}
    with dg.DagsterInstance.ephemeral() as instance:
        coordinator = FleetRunCoordinator()
        coordinator.register_instance(instance)
        other, run = new_run(other_status, **{**tags, **other_tags}), new_run(**tags)
        for one in (other, run):
            instance.add_run(one)
        queued = coordinator.submit_run(SubmitRunContext(run, workspace=Mock()))
        assert queued.run_id == run.run_id
        stored = instance.get_run_by_id(run.run_id)
        assert stored is not None
        assert stored.status == (Status.QUEUED if is_queued else Status.CANCELED)
        messages = " ".join(record.message for record in instance.all_logs(run.run_id))
        assert (other.run_id in messages) != is_queued
        by_hand = new_run(**{"dagster/partition": "anna"})
        instance.add_run(by_hand)
        assert coordinator.submit_run(SubmitRunContext(by_hand, workspace=Mock())).status == Status.QUEUED


@pytest.mark.parametrize("selection", REVIEW_AGAIN)
def test_a_run_that_repeats_another_part_of_the_request_drops_no_clip_and_is_not_dropped(
    selection: dict[str, Any],
) -> None:
    tags = {"dagster/partition": "anna", CONTENT_TAG: "new"}
    with dg.DagsterInstance.ephemeral() as instance:
        coordinator = FleetRunCoordinator()
        coordinator.register_instance(instance)
        instance.add_run(new_run(Status.STARTED, selection, **tags))
        for run in (new_run(**tags), new_run(selection=selection, **tags)):
            instance.add_run(run)
            assert coordinator.submit_run(SubmitRunContext(run, workspace=Mock())).status == Status.QUEUED
