"""The schedule that makes, off-peak, every clip that is pending; what a person canceled stays canceled.

See ``libs.requests.lifecycle.states`` for how a clip's state is known, ``orchestration.requests.runs`` for what counts
as a run in progress.
"""

from datetime import datetime
from zoneinfo import ZoneInfo

import dagster as dg

from libs.errors import SettingsError
from libs.requests.lifecycle.states import ClipState, RequestState, RequestStates
from libs.settings import Settings
from orchestration.dagster_internals import is_valid_cron_schedule
from orchestration.jobs import ANIMATE
from orchestration.partitions import ANIMATION_REQUESTS
from orchestration.recovery.batches import batch_of, note_plan, stopped_at
from orchestration.requests.canceled_runs import canceled_requests
from orchestration.requests.runs import RunsInProgress, clip_run
from orchestration.storage.resources import StorageResource


def build_nightly_batch(settings: Settings) -> dg.ScheduleDefinition:
    """The schedule ``nightly_batch`` at the time that the settings name.

    Raises:
        SettingsError: NIGHTLY_CRON is no cron line.
    """
    if not is_valid_cron_schedule(settings.nightly_cron):
        raise SettingsError(
            f"NIGHTLY_CRON={settings.nightly_cron!r} must be minute, hour, day, month and weekday, e.g. '0 1 * * *'"
        )

    @dg.schedule(
        name="nightly_batch",
        job=ANIMATE,
        cron_schedule=settings.nightly_cron,
        execution_timezone=settings.nightly_timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Runs every registered request that has no clip of its newest content, unless it was canceled.",
    )
    def nightly_batch(
        context: dg.ScheduleEvaluationContext, storage: StorageResource
    ) -> list[dg.RunRequest] | dg.SkipReason:
        registered = context.instance.get_dynamic_partitions(str(ANIMATION_REQUESTS.name))
        states = RequestStates(storage.artifacts()).of(registered)
        progress = RunsInProgress(context.instance)
        batch = batch_of(_in_time_zone(context.scheduled_execution_time, settings.nightly_timezone))
        if stopped := stopped_at(storage.objects(), batch):
            return dg.SkipReason(f"The batch {batch} was stopped at {stopped}.")
        missing = [state for state in most_urgent_first(states) if not progress.cover(state.request_id, state.content)]
        canceled = canceled_requests(context.instance, storage.objects(), missing)
        missing = [state for state in missing if state.request_id not in canceled]
        if canceled:
            context.log.info(f"{len(canceled)} canceled requests stay so until they are submitted again")
        if not missing:
            return dg.SkipReason(f"None of the {len(registered)} registered requests lacks a clip.")
        note_plan(storage.objects(), batch, [state.request_id for state in missing])
        return [
            clip_run(state.request_id, state.request_id, priority=state.priority, content=state.content, batch=batch)
            for state in missing
        ]

    return nightly_batch


def _in_time_zone(moment: datetime, name: str) -> datetime:
    return moment.astimezone(ZoneInfo(name))


def most_urgent_first(states: list[RequestState]) -> list[RequestState]:
    """Those without a clip of their newest content, by priority; among equals the one registered first."""
    missing = [state for state in states if state.clip != ClipState.STORED]
    return sorted(missing, key=lambda state: -state.priority)
