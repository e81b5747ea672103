"""What Dagster calls stale after a sensor has looked at inputs, for the tests of this folder."""

from typing import Any

import dagster as dg

from orchestration.definitions import build_defs
from orchestration.jobs import ANIMATE
from orchestration.staleness import unfinished_assets
from orchestration.storage.resources import SettingsResource, StorageResource


class Watch:
    """A sensor that watches inputs, tick by tick; its observations are stored as the daemon stores them."""

    def __init__(self, world: Any, sensor: dg.SensorDefinition) -> None:
        self.world = world
        self.sensor = sensor
        available = {"settings": SettingsResource(), "storage": StorageResource(settings=SettingsResource())}
        self.resources = {name: available[name] for name in sensor.required_resource_keys}
        self.cursor: str | None = None

    def tick(self) -> list[tuple[str, str | None]]:
        """(asset, request) of what was observed."""
        with dg.build_sensor_context(
            instance=self.world.instance,
            cursor=self.cursor,
            resources=self.resources,
        ) as context:
            result = self.sensor(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        for event in result.asset_events:
            self.world.instance.report_runless_asset_event(event)
        return sorted((event.asset_key.to_user_string(), event.partition) for event in result.asset_events)


def materialize(world: Any, request_id: str, *assets: str) -> None:
    """Make these assets of one request."""
    job = build_defs().resolve_job_def(ANIMATE.name)
    world.instance.add_dynamic_partitions("animation_requests", [request_id])
    keys = [dg.AssetKey(name) for name in assets]
    assert job.execute_in_process(partition_key=request_id, instance=world.instance, asset_selection=keys).success


def stale(world: Any, request_id: str, *assets: str) -> set[str]:
    """Those of ``assets`` that Dagster calls stale or missing, and those below them."""
    keys = [dg.AssetKey(name) for name in assets]
    return {key.to_user_string() for key in unfinished_assets(build_defs(), world.instance, keys, request_id)}
