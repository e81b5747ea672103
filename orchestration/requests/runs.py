"""Runs that make the clip of a request: how one is asked for, and which are on their way.

See ``orchestration.inbox.sensor`` and ``nightly`` for which requests get one.
"""

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg

from libs.requests.lifecycle.states import CLIP_ASSET
from orchestration.dagster_internals import IN_PROGRESS_RUN_STATUSES, PARTITION_NAME_TAG, PRIORITY_TAG, WILL_RETRY_TAG
from orchestration.jobs import ANIMATE
from orchestration.policies import BATCH_TAG, CONTENT_TAG, MAKES_TAG

UNFINISHED = [*IN_PROGRESS_RUN_STATUSES, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED]
"""Statuses of runs that are going on or wait for their turn."""

_NOT_STARTED = frozenset({
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
})  # fmt: skip

RETRY_IS_DUE = timedelta(minutes=10)
"""How long a crashed run counts as going on: Dagster's daemon launches its retry within seconds, or never."""

_RUNS_AT_ONCE = 1000


def asset_run(request_id: str, asset: str, run_key: str, *, priority: int) -> dg.RunRequest:
    """Ask for one asset of ``request_id``, made of what is stored of the others."""
    return dg.RunRequest(
        run_key=run_key,
        partition_key=request_id,
        tags={PRIORITY_TAG: str(priority), PARTITION_NAME_TAG: request_id},
        asset_selection=[dg.AssetKey(asset)],
    )


def clip_run(
    request_id: str, run_key: str, *, priority: int, content: str | None, batch: str | None = None
) -> dg.RunRequest:
    """Ask for the clip of ``request_id``; the more urgent one leaves Dagster's queue first.

    ``content`` is what the request says now: the run refuses to make anything else. ``batch`` names the nightly batch
    it belongs to.
    """
    # With its partition in the tags a request counts as resolved; otherwise Dagster asks the database for each one.
    tags = {PRIORITY_TAG: str(priority), PARTITION_NAME_TAG: request_id}
    if content is not None:
        tags[CONTENT_TAG] = content
    if batch is not None:
        tags[BATCH_TAG] = batch
    return dg.RunRequest(run_key=run_key, partition_key=request_id, tags=tags)


def note_content(context: dg.AssetExecutionContext, content: str | None) -> None:
    """Note in the run's tags that it makes this ``content``: a run started by hand finds out on its way."""
    if content is not None and CONTENT_TAG not in context.run.tags:
        context.instance.add_run_tags(context.run_id, {MAKES_TAG: content})


class RunsInProgress:
    """The runs that make a clip, wait for their turn or for their retry, however they were started, at one moment."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._contents: dict[str, set[str | None]] = defaultdict(set)
        crashed = dg.RunsFilter(
            statuses=[dg.DagsterRunStatus.FAILURE],
            tags={WILL_RETRY_TAG: "true"},
            updated_after=datetime.now(UTC) - RETRY_IS_DUE,
        )
        # The crashed first: a retry that is launched meanwhile is found by the second question.
        for run in all_runs(instance, crashed):
            if run.is_complete_and_waiting_to_retry:
                self._note(run)
        for run in all_runs(instance, dg.RunsFilter(statuses=UNFINISHED)):
            self._note(run)

    def _note(self, run: dg.DagsterRun) -> None:
        if makes_a_clip(run):
            self._contents[run.tags[PARTITION_NAME_TAG]].add(_content_of(run))

    def cover(self, request_id: str, content: str | None) -> bool:
        """True when a run in progress makes, or may make, the clip of this content.

        A run started by hand takes the newest content, so it counts until it has taken one; a run for a content that
        was replaced since does not.
        """
        contents = self._contents.get(request_id, set())
        return bool(contents) if content is None else bool(contents & {content, None})


def all_runs(instance: dg.DagsterInstance, wanted: dg.RunsFilter) -> Iterator[dg.DagsterRun]:
    """The runs that ``wanted`` describes, the newest first, a page at a time."""
    cursor = None
    while runs := instance.get_runs(wanted, cursor=cursor, limit=_RUNS_AT_ONCE):
        yield from runs
        cursor = runs[-1].run_id


def _content_of(run: dg.DagsterRun) -> str | None:
    """What the run makes; None where it will take what is newest then.

    A run that has not started yet may have the tags of the one it repeats.
    """
    found_out = None if run.status in _NOT_STARTED else run.tags.get(MAKES_TAG)
    return run.tags.get(CONTENT_TAG, found_out)


def makes_a_clip(run: dg.DagsterRun) -> bool:
    """True for a run of one request whose steps include the clip; repeating its review, say, does not."""
    if PARTITION_NAME_TAG not in run.tags:
        return False
    if run.step_keys_to_execute is not None and CLIP_ASSET not in run.step_keys_to_execute:
        return False
    if run.asset_selection is None:
        return run.job_name == ANIMATE.name
    return dg.AssetKey(CLIP_ASSET) in run.asset_selection
