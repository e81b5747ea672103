"""The runs of requests for the command line: how far they are, and how they are ended.

Implements ``libs.requests.lifecycle.run_reports.RequestRuns`` on Dagster's instance.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import dagster as dg

from libs.progress import parse_progress
from libs.requests.lifecycle.run_reports import CanceledRuns, RunPhase, RunReport
from libs.requests.lifecycle.states import CLIP_ASSET
from orchestration.dagster_internals import PARTITION_NAME_TAG, PRIORITY_TAG
from orchestration.policies import DROPPED_TAG
from orchestration.requests.canceled_runs import ended_at
from orchestration.requests.runs import UNFINISHED, makes_a_clip
from orchestration.staleness import stale_clips

_PAGE = 1000
_PAGES = 5
"""Bounds how far back ended runs are looked for."""

_ASKED_BY_NAME = 500
"""Requests whose ended runs are asked for by name; for more, all runs that ended are read."""

_EVENTS = (5, 100)
"""Newest lines of a run's log in which its progress is looked for: it is nearly always among the first."""

_REASONS = _LOGS = 100
"""Failed runs whose reason is read, and running ones whose progress is; the newest."""

_STAGES = {
    "validate_request": "checking request and media",
    "pose_tracks": "poses",
    "pose_conditioning": "pose preview",
    CLIP_ASSET: "loading the model",
    "animation_review": "review",
}
"""What a step is called until it reports its progress."""

_WAITING = {dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED}
_ENDED = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.SUCCESS]


class _Doing(NamedTuple):
    """What a run is at: in words, and of that stage how much is done and how long the rest takes."""

    words: str
    percent: int | None = None
    seconds_left: float | None = None


class InstanceRuns:
    """The runs of ``instance``."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance

    def require_database(self) -> None:
        """Ask the database something small; it raises an error of its own where it does not answer."""
        self._instance.get_runs_count(dg.RunsFilter(run_ids=["-"]))

    def reports(self, missing: Iterable[str], shown: Iterable[str] = ()) -> dict[str, RunReport]:
        """Runs in progress of all requests, and of those ``missing`` a clip the newest that ended.

        What a run is at, which its log tells, is read for those that are ``shown``.
        """
        unfinished = [record for record in self._records(UNFINISHED) if makes_a_clip(record.dagster_run)]
        reports = self._in_progress(unfinished, set(shown))
        wanted = set(missing) - reports.keys()
        reasons = _REASONS
        for record in self._ended(wanted):
            run = record.dagster_run
            request_id = run.tags.get(PARTITION_NAME_TAG)
            if request_id not in wanted or not makes_a_clip(run) or DROPPED_TAG in run.tags:
                continue
            wanted.remove(request_id)
            reason = ""
            if run.status == dg.DagsterRunStatus.FAILURE and reasons:
                reason, reasons = self._reason(run.run_id), reasons - 1
            elif run.status == dg.DagsterRunStatus.FAILURE:
                reason = "see the run in the Dagster UI"
            reports[request_id] = RunReport(_phase(run.status), ended_at(record), reason=reason, run_id=run.run_id)
            if not wanted:
                break
        return reports

    def stale(self, request_ids: Iterable[str]) -> dict[str, list[str]]:
        """Why the clips of ``request_ids`` are not what would be made now; nothing of those that are."""
        return stale_clips(self._instance, request_ids)

    def cancel(self, request_id: str) -> CanceledRuns:
        """End the runs of ``request_id`` that wait or go on; those that make only poses, too."""
        of_request = dg.RunsFilter(statuses=UNFINISHED, tags={PARTITION_NAME_TAG: request_id})
        canceled, refused = 0, []
        for run in self._instance.get_runs(of_request):
            if run.status == dg.DagsterRunStatus.CANCELING or self._instance.run_coordinator.cancel_run(run.run_id):
                canceled += 1
            else:
                refused.append(run.run_id)
        return CanceledRuns(canceled, tuple(refused))

    def _ended(self, requests: set[str]) -> Iterator[dg.RunRecord]:
        """Runs of ``requests`` that ended, the newest first; those of many requests are looked for among all runs."""
        if requests:
            named = {PARTITION_NAME_TAG: sorted(requests)} if len(requests) <= _ASKED_BY_NAME else {}
            yield from self._records(_ENDED, pages=_PAGES, tags=named)

    def _records(
        self,
        statuses: Iterable[dg.DagsterRunStatus],
        pages: int | None = None,
        tags: Mapping[str, str | list[str]] | None = None,
    ) -> Iterator[dg.RunRecord]:
        """The newest first, a page at a time."""
        cursor, page = None, 0
        wanted = dg.RunsFilter(statuses=list(statuses), tags=tags)
        while pages is None or page < pages:
            records = self._instance.get_run_records(wanted, limit=_PAGE, cursor=cursor)
            yield from records
            if len(records) < _PAGE:
                return
            cursor, page = records[-1].dagster_run.run_id, page + 1

    def _in_progress(self, records: list[dg.RunRecord], shown: set[str]) -> dict[str, RunReport]:
        queued = [record for record in records if record.dagster_run.status in _WAITING]
        queued.sort(key=lambda record: (-_priority(record.dagster_run), record.storage_id))
        reports = {}
        for ahead, record in reversed(list(enumerate(queued))):
            run = record.dagster_run
            request_id = run.tags[PARTITION_NAME_TAG]
            reports[request_id] = RunReport(RunPhase.QUEUED, ended_at(record), ahead=ahead, run_id=run.run_id)
        logs = _LOGS
        for record in records:
            run = record.dagster_run
            if run.status not in _WAITING:
                request_id, doing = run.tags[PARTITION_NAME_TAG], _Doing("running")
                if run.status == dg.DagsterRunStatus.CANCELING:
                    doing = _Doing("stops")
                elif request_id in shown and logs:
                    doing, logs = self._doing(run.run_id), logs - 1
                reports[request_id] = RunReport(
                    RunPhase.RUNNING,
                    ended_at(record),
                    doing=doing.words,
                    percent=doing.percent,
                    seconds_left=doing.seconds_left,
                    run_id=run.run_id,
                )
        return reports

    def _doing(self, run_id: str) -> "_Doing":
        """What the run's newest progress says, from its log."""
        for limit in _EVENTS:
            events = self._instance.get_records_for_run(run_id, limit=limit, ascending=False).records
            for entry in (record.event_log_entry for record in events):
                if (line := parse_progress(entry.user_message)) is not None and entry.dagster_event is None:
                    then = ", then the review" if line.stage == "sampling" else ""
                    ago = time.time() - entry.timestamp
                    left = None if line.seconds_left is None else max(0.0, line.seconds_left - ago)
                    return _Doing(line.describe(ago) + then, line.percent, left)
                event = entry.dagster_event
                if event is not None and event.event_type == dg.DagsterEventType.STEP_START:
                    return _Doing(_STAGES.get(event.step_key or "", event.step_key or "running"))
        return _Doing("starting")

    def _reason(self, run_id: str) -> str:
        failures = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
        events = self._instance.get_records_for_run(run_id, of_type=failures, limit=10).records
        for event in (record.event_log_entry.dagster_event for record in events):
            if event is not None and event.is_step_failure:
                data = event.step_failure_data
                if data.user_failure_data is not None and data.user_failure_data.description:
                    return str(data.user_failure_data.description)
                if data.error is not None:
                    return str((data.error.cause or data.error).message).strip()
        for event in (record.event_log_entry.dagster_event for record in events):
            if event is not None and event.message:
                return str(event.message)
        return "see the run in the Dagster UI"


def _phase(status: dg.DagsterRunStatus) -> RunPhase:
    phases = {dg.DagsterRunStatus.FAILURE: RunPhase.FAILED, dg.DagsterRunStatus.CANCELED: RunPhase.CANCELED}
    return phases.get(status, RunPhase.ENDED)


def _priority(run: dg.DagsterRun) -> int:
    text = run.tags.get(PRIORITY_TAG, "0")
    return int(text) if text.lstrip("-").isdigit() else 0
