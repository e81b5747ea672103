"""What a run observes of external assets, in the step that uses them.

See ``orchestration.requests.request_inputs``, ``orchestration.models.hub_repositories`` and
``orchestration.models.models_in_use`` for which external assets there are.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import dagster as dg

DATA_VERSION_TAG = "dagster/data_version"


@dataclass(frozen=True)
class FileVersion:
    """The observed version of a file, written as ``sha256sum`` prints it: digest, then path.

    With the path in it, the versions of all requests say which of them use a file.
    """

    sha256: str
    path: str

    def __str__(self) -> str:
        return f"{self.sha256}  {self.path}"

    @classmethod
    def parse(cls, version: str) -> "FileVersion":
        """What :meth:`__str__` wrote."""
        sha256, _, path = version.partition("  ")
        return cls(sha256, path)


def observation(
    asset: str, partition: str, version: str, metadata: dict[str, dg.MetadataValue] | None = None
) -> dg.AssetObservation:
    """The external ``asset`` was seen to be ``version`` for ``partition``."""
    return dg.AssetObservation(asset, partition=partition, metadata=metadata, tags={DATA_VERSION_TAG: version})


def observe_inputs(context: dg.AssetExecutionContext, observations: Iterable[dg.AssetObservation]) -> None:
    """Log observations of what this very step is made from, before its outputs are yielded.

    Dagster looks at a step's inputs when the step begins and notes them in the outputs' provenance. An input observed
    after that would look newer than the outputs, so it is made to look again, as it does itself for assets that a step
    materializes on its way.
    """
    step = context.get_step_execution_context()
    for event in observations:
        context.log_event(event)
        step.wipe_input_asset_version_info(event.asset_key)


def observed_versions(instance: dg.DagsterInstance, asset: str, partitions: list[str] | None = None) -> dict[str, str]:
    """Partition -> the version of the external ``asset`` that was observed last, of all partitions in one question."""
    found = instance.event_log_storage.get_latest_tags_by_partition(
        dg.AssetKey(asset), dg.DagsterEventType.ASSET_OBSERVATION, [DATA_VERSION_TAG], asset_partitions=partitions
    )
    return {partition: tags[DATA_VERSION_TAG] for partition, tags in found.items()}
