"""An old stash of pretrained files, brought into a variant's repository without storing them twice.

Only reports what it would do unless told to ``apply``. See ``orchestration.models.stash_job`` for deleting the stash.
"""

import json
from pathlib import Path
from typing import get_args

import dagster as dg

from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.model_repo.operations.migrate import STASH_FOLDER, MigrationPlan, Mode, apply_migration, plan_migration
from orchestration.failures import STEP_RETRIES, failures_explained
from orchestration.partitions import MODEL_VARIANTS
from orchestration.policies import CODE_VERSIONS, MODELS_GROUP, OWNERS
from orchestration.storage.outputs import folder_output
from orchestration.storage.resources import ProgressResource, ScratchResource, SettingsResource

MIGRATION_FILE = "migration.json"
ROWS_SHOWN = 60


class MigrationConfig(dg.Config):
    """Which stash, and how its files come."""

    stash: str | None = None
    """the old pretrained_models folder; MODELS_DIR/One-to-All-Animation/pretrained_models when left out"""
    mode: str = "hardlink"
    """hardlink (a copy where the disk differs), copy or symlink"""
    apply: bool = False
    """do it; otherwise only report what would be done"""

    def checked_mode(self) -> Mode:
        """Check the mode.

        Raises:
            dagster.Failure: no such mode.
        """
        for mode in get_args(Mode):
            if mode == self.mode:
                return mode  # type: ignore[no-any-return]  # get_args is untyped
        raise dg.Failure(f"mode: must be one of {', '.join(get_args(Mode))} (found {self.mode!r})", allow_retries=False)


@dg.asset(
    partitions_def=MODEL_VARIANTS,
    group_name=MODELS_GROUP,
    owners=OWNERS,
    kinds={"python"},
    code_version=CODE_VERSIONS["model_files"],
    retry_policy=STEP_RETRIES,
)
def migrated_pretrained_models(
    context: dg.AssetExecutionContext,
    config: MigrationConfig,
    settings: SettingsResource,
    scratch: ScratchResource,
    progress: ProgressResource,
) -> dg.Output:
    """What an older installation's files became in this variant's repository: linked, copied, already there."""
    with failures_explained():
        loaded = settings.load()
        layout = layout_of(context.partition_key, loaded)
        stash = Path(config.stash) if config.stash else loaded.models_dir / STASH_FOLDER
        plan = None
        if config.stash or _may_hold_files_of(layout, stash):
            plan = plan_migration(layout, stash, progress.of_bytes(context))
            if config.apply:
                apply_migration(layout, plan, config.checked_mode(), progress.of_bytes(context))
        with scratch.filled_folder("migration") as folder:
            (folder / MIGRATION_FILE).write_text(json.dumps(_describe(plan, applied=config.apply), indent=2))
    return folder_output(folder, _metadata(plan, stash, applied=config.apply))


def _may_hold_files_of(layout: RepositoryLayout, stash: Path) -> bool:
    """Only variants whose files come from elsewhere have anything to migrate."""
    return layout.variant.checkpoint is not None and stash.is_dir()


def _describe(plan: MigrationPlan | None, *, applied: bool) -> dict[str, object]:
    if plan is None:
        return {"files": [], "applied": False}
    return {"files": sorted([*(step.name for step in plan.steps), *plan.present]), "applied": applied}


def _metadata(plan: MigrationPlan | None, stash: Path, *, applied: bool) -> dict[str, dg.MetadataValue]:
    if plan is None:
        return {"result": dg.MetadataValue.text(f"no old stash in {stash}: nothing to migrate")}
    rows = [dg.TableRecord({"file": step.name, "bytes": step.size}) for step in plan.steps[:ROWS_SHOWN]]
    verb = "brought" if applied else "would bring (set apply: true to do it)"
    return {
        "result": dg.MetadataValue.text(f"{verb} {len(plan.steps)} files, {len(plan.present)} were there already"),
        "bytes": dg.MetadataValue.int(plan.size),
        "left behind": dg.MetadataValue.int(plan.skipped_size),
        "files": dg.MetadataValue.table(rows or [dg.TableRecord({"file": "none", "bytes": 0})]),
    }
