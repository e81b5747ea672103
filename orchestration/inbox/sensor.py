"""The sensor that turns documents in the inbox into registered partitions and runs.

See ``libs.requests.inbox.intake`` for what is accepted and what is not.
"""

from datetime import UTC, datetime

import dagster as dg

from libs.model_repo.variants import variant_of_folder
from libs.requests.inbox.inbox import Inbox
from libs.requests.inbox.intake import InboxScanner, ScanResult, ScanState
from libs.requests.lifecycle.accepted import AcceptedRequest, AcceptedRequests
from orchestration.jobs import ANIMATE
from orchestration.partitions import ANIMATION_REQUESTS
from orchestration.requests.request_inputs import observe_changed_documents
from orchestration.requests.retries import requests_to_try_again
from orchestration.requests.runs import RunsInProgress, clip_run
from orchestration.storage.resources import SettingsResource, StorageResource

_NAMES_SHOWN = 5


@dg.sensor(
    job=ANIMATE,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Takes request documents from the inbox: registers their partitions and launches their runs.",
)
def inbox_sensor(
    context: dg.SensorEvaluationContext, settings: SettingsResource, storage: StorageResource
) -> dg.SensorResult:
    """Scan the inbox once; the cursor makes the next scan go on where this one stopped.

    A run is asked for each time a pending request is seen; its run key makes Dagster launch one.
    An id is registered once, however often it was accepted: Dagster's database refuses to take it twice, and would
    refuse this answer for ever.
    """
    objects = storage.objects()
    requests = AcceptedRequests(objects)
    default_model = variant_of_folder(settings.load().one_to_all_model_dir).name
    found = InboxScanner(Inbox(objects), requests, default_model).scan(
        ScanState.load(context.cursor), datetime.now(UTC)
    )
    for rejection in found.rejected:
        context.log.warning(f"rejected {rejection.name}: {rejection.reason}")
        if rejection.traceback:
            context.log.error(f"unforeseen error in {rejection.name}:\n{rejection.traceback}")
    for problem in found.unreadable:
        context.log.warning(f"left in the inbox: {problem}")
    accepted = {entry.request.id: entry for entry in found.accepted}
    again = requests_to_try_again(context.instance, objects, requests)
    accepted |= again
    pending = [
        entry
        for entry in accepted.values()
        if (_runs_now(entry) or entry.request.id in again) and requests.is_pending(entry)
    ]
    progress = RunsInProgress(context.instance) if pending else None
    runs = [_run_of(entry) for entry in pending if progress and not progress.cover(entry.request.id, entry.content)]
    asked = observe_changed_documents(context.instance, list(accepted.values()))
    registered = list(accepted)
    return dg.SensorResult(
        run_requests=runs,
        dynamic_partitions_requests=[ANIMATION_REQUESTS.build_add_request(registered)] if registered else [],
        asset_events=list(asked),
        skip_reason=None if runs else dg.SkipReason(_summary(found)),
        cursor=found.state.model_dump_json(exclude_defaults=True),
    )


def _runs_now(accepted: AcceptedRequest) -> bool:
    return accepted.request.when == "now"


def _run_of(accepted: AcceptedRequest) -> dg.RunRequest:
    request = accepted.request
    return clip_run(request.id, accepted.launch_key, priority=request.priority, content=accepted.content)


def _summary(found: ScanResult) -> str:
    groups = {
        "accepted": [accepted.request.id for accepted in found.accepted],
        "rejected": [rejection.name for rejection in found.rejected],
        "waiting for media": found.waiting,
        "unreadable": found.unreadable,
    }
    parts = [f"{len(names)} {title}: {_some(names)}" for title, names in groups.items() if names]
    return "; ".join(parts) or "nothing new in the inbox"


def _some(names: list[str]) -> str:
    more = ", …" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more
