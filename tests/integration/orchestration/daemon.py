"""What the daemon does with the inbox sensor and the nightly batch, tick by tick, on a real instance.

Evaluation goes the way of the code server; run keys count as Dagster counts them. The runs are created, not executed.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.storage.tags import RUN_KEY_TAG
from dagster._core.utils import make_new_run_id

from libs.requests.lifecycle.accepted import CONTENT_ATTRIBUTE
from libs.storage.artifacts import ArtifactFiles
from orchestration.definitions import build_defs
from orchestration.jobs import ANIMATE
from orchestration.policies import CONTENT_TAG
from orchestration.storage.resources import SettingsResource, StorageResource


class Daemon:
    """Ticks of one instance; ``runs`` are those that were launched, the oldest first."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.cursor: str | None = None
        self.runs: list[dg.DagsterRun] = []
        self.skipped: str | None = None
        self._run_keys: set[str | None] = set()
        self._repository = build_defs().get_repository_def()
        settings = SettingsResource()
        self._resources = {"settings": settings, "storage": StorageResource(settings=settings)}

    def scan_inbox(self) -> list[str]:
        """One tick of the sensor; returns the requests whose runs were launched."""
        return self._scan()[0]

    def observe_inbox(self) -> list[tuple[str, str | None]]:
        """One tick of the sensor; returns (asset, partition) of what was observed, sorted."""
        return self._scan()[1]

    def _scan(self) -> tuple[list[str], list[tuple[str, str | None]]]:
        context = dg.SensorEvaluationContext(
            instance_ref=self.world.instance.get_ref(),
            last_tick_completion_time=None,
            last_run_key=None,
            cursor=self.cursor,
            log_key=None,
            repository_name=self._repository.name,
            repository_def=self._repository,
            resources=self._resources,
        )
        with context:
            tick = self._repository.get_sensor_def("inbox_sensor").evaluate_tick(context)
        for request in tick.dynamic_partitions_requests or []:
            self.world.instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
        self.cursor, self.skipped = tick.cursor, tick.skip_message
        new = [request for request in tick.run_requests or [] if request.run_key not in self._run_keys]
        self._run_keys.update(request.run_key for request in new)
        for event in tick.asset_events:
            self.world.instance.report_runless_asset_event(event)
        observed = sorted((event.asset_key.to_user_string(), event.partition) for event in tick.asset_events)
        return [self._launch(request) for request in new], observed

    def night(self, launched: int | None = None) -> list[str]:
        """One tick of the schedule, interrupted after ``launched`` runs; returns their requests, in their order."""
        tick = self._evaluate_schedule()
        self.skipped = tick.skip_message
        return [self._launch(request) for request in (tick.run_requests or [])[:launched]]

    def _evaluate_schedule(self) -> Any:
        context = dg.ScheduleEvaluationContext(
            instance_ref=self.world.instance.get_ref(),
            scheduled_execution_time=datetime.now(UTC),
            repository_name=self._repository.name,
            schedule_name="nightly_batch",
            repository_def=self._repository,
            resources={"storage": self._resources["storage"]},
            log_key=None,
        )
        with context:
            return self._repository.get_schedule_def("nightly_batch").evaluate_tick(context)

    def _launch(self, request: dg.RunRequest) -> str:
        assert request.partition_key is not None
        tags = {**request.tags, RUN_KEY_TAG: request.run_key} if request.run_key else request.tags
        self.runs.append(self.start_run(tags))
        return request.partition_key

    def start_run(
        self, tags: Mapping[str, str], *assets: str, status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED
    ) -> dg.DagsterRun:
        """A run of the job in progress, of all its assets or of those named."""
        run = dg.DagsterRun(
            job_name=ANIMATE.name,
            run_id=make_new_run_id(),
            tags=tags,
            status=status,
            asset_selection=frozenset(dg.AssetKey(name) for name in assets) or None,
        )
        return self.world.instance.add_run(run)

    def run_of(self, request_id: str) -> dg.DagsterRun:
        """The newest run of a request."""
        return next(run for run in reversed(self.runs) if run.tags["dagster/partition"] == request_id)

    def fail(self, request_id: str) -> None:
        self.world.instance.report_run_failed(self.run_of(request_id))

    def cancel(self, request_id: str) -> None:
        self.world.instance.report_run_canceled(self.run_of(request_id))

    def succeed(self, request_id: str) -> None:
        """The run ends, and the clip of what it was launched for is stored."""
        run = self.run_of(request_id)
        content = run.tags.get(CONTENT_TAG)
        folder = self.world.data_dir / f"clip-{run.run_id}"
        folder.mkdir()
        (folder / "clip.mp4").write_text(run.run_id)
        files = ArtifactFiles(folder, attributes={CONTENT_ATTRIBUTE: content})
        self.world.store.publish("animation", request_id, files, {"run_id": run.run_id})
        self.world.requests.clear_pending(request_id, content)
        self.world.instance.report_dagster_event(
            dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, ANIMATE.name), run.run_id
        )
