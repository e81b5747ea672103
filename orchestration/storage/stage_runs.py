"""The run of a stage (``libs.stages.run``) in a step of Dagster: its store, its progress, its log."""

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from orchestration.storage.resources import ProgressResource, StorageResource

if TYPE_CHECKING:
    from libs.stages.run import StageRun


def stage_run(
    context: dg.AssetExecutionContext, folder: Path, storage: StorageResource, progress: ProgressResource
) -> "StageRun":
    """The run of the stage that fills ``folder`` in this step."""
    from libs.stages.run import StageRun  # noqa: PLC0415 - loading the code location stays light

    return StageRun(context.run_id, folder, storage.artifacts(), progress.of(context), context.log)
