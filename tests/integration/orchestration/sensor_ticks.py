"""Ticks of the sensors as Dagster's own daemon makes them: its handler, a real instance, runs that are queued."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.scheduler.instigation import InstigatorTick, TickStatus
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget, WorkspaceLoadTarget
from dagster._daemon import daemon as daemons
from dagster._daemon import sensor as sensor_daemon
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._utils.error import SerializableErrorInfo

from libs.settings import REPOSITORY_ROOT
from orchestration.partitions import ANIMATION_REQUESTS
from orchestration.policies import CONTENT_TAG
from tests.waiting import wait_until


class _ThisProcess(WorkspaceLoadTarget):
    """The code location in this process, so that a test needs no server of its own."""

    def create_origins(self) -> list[Any]:
        target = LoadableTargetOrigin(module_name="orchestration.definitions")
        return [InProcessCodeLocationOrigin(target, location_name="one_to_all")]


class SensorTicks:
    """The daemon's iterations on the world of a test."""

    def __init__(self, world: Any, workspace: WorkspaceProcessContext) -> None:
        self.world = world
        self._workspace = workspace
        sensors = {
            sensor.name: sensor
            for entry in workspace.create_request_context().get_code_location_entries().values()
            if entry.code_location
            for repository in entry.code_location.get_repositories().values()
            for sensor in repository.get_sensors()
        }
        self._sensor = sensors.pop("inbox_sensor")
        for other in sensors.values():
            world.instance.stop_sensor(other.get_remote_origin_id(), other.selector_id, other)

    def tick(self) -> InstigatorTick:
        """One iteration of the daemon; returns the tick of the inbox, which must not have failed."""
        list(sensor_daemon.execute_sensor_iteration(self._workspace, logging.getLogger("test"), None, None))
        tick = self.ticks()[0]
        assert tick.status is not TickStatus.FAILURE, tick.error
        return tick

    def launch_queued(self) -> None:
        """One iteration of the daemon that takes runs from the queue; for a code location in a server of its own."""
        with QueuedRunCoordinatorDaemon(interval_seconds=1) as daemon:
            list(daemon.run_iteration(self._workspace))

    def ticks(self) -> list[InstigatorTick]:
        """All ticks of the inbox, the newest first."""
        return list(self.world.instance.get_ticks(self._sensor.get_remote_origin_id(), self._sensor.selector_id))

    def registered(self) -> list[str]:
        return sorted(self.world.instance.get_dynamic_partitions(str(ANIMATION_REQUESTS.name)))

    def runs(self) -> list[tuple[str, str]]:
        """Request and content of every run that was queued, sorted."""
        return sorted((run.tags["dagster/partition"], run.tags[CONTENT_TAG]) for run in self.queued())

    def queued(self) -> list[dg.DagsterRun]:
        return list(self.world.instance.get_runs())

    def run_daemon(self, until: Callable[[], bool]) -> list[SerializableErrorInfo]:
        """Run Dagster's own sensor daemon, in threads as production sets it, until ``until``; returns its errors."""
        production = yaml.safe_load((Path(__file__).parents[3] / "infra" / "dagster.prod.yaml").read_text())
        assert production["sensors"]["use_threads"]
        stop = threading.Event()
        with daemons.SensorDaemon(production["sensors"]) as daemon:
            loop = threading.Thread(
                target=daemon.run_daemon_loop,
                kwargs={
                    "workspace_process_context": self._workspace,
                    "daemon_uuid": "test",
                    "daemon_shutdown_event": stop,
                    "heartbeat_interval_seconds": 0,
                    "error_interval_seconds": 600,
                },
            )
            loop.start()
            try:
                wait_until("the daemon has done it, or has ended", lambda: until() or not loop.is_alive())
            finally:
                stop.set()
                loop.join()
        return list(self.world.instance.get_daemon_heartbeats()["SENSOR"].errors or ())


WAITING_RUNS = PythonFileTarget(
    str(Path(__file__).with_name("waiting_code_location.py")), None, str(REPOSITORY_ROOT), "one_to_all"
)
"""The code location in a server of its own, as the daemon has it; runs that are launched go on until they are ended."""


@contextmanager
def sensor_ticks(world: Any, location: WorkspaceLoadTarget | None = None) -> Iterator[SensorTicks]:
    """Ticks one right after the other: the interval between them is nobody's concern here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sensor_daemon, "is_under_min_interval", lambda *_: False)
        patch.setattr(sensor_daemon, "MIN_INTERVAL_LOOP_TIME", 0.2)
        with WorkspaceProcessContext(world.instance, location or _ThisProcess()) as workspace:
            yield SensorTicks(world, workspace)
