"""The job that deletes an old stash, after a verified repository has taken over.

See ``orchestration.models.migration`` for bringing the files over.
"""

from pathlib import Path

import dagster as dg

from libs.errors import ModelFilesError
from libs.model_repo.layout import layout_of
from libs.model_repo.operations.migrate import STASH_FOLDER
from libs.model_repo.operations.stash import delete_stash
from libs.stages.model_verification import stored_verification
from orchestration.failures import failures_explained
from orchestration.storage.resources import ProgressResource, SettingsResource, StorageResource


class StashConfig(dg.Config):
    """Which stash, judged by which variant's verification."""

    variant: str = "14b"
    stash: str | None = None
    """the old pretrained_models folder; MODELS_DIR/One-to-All-Animation/pretrained_models when left out"""
    apply: bool = False
    """delete; otherwise only show what would go"""


@dg.op
def delete_stash_if_verified(
    context: dg.OpExecutionContext,
    config: StashConfig,
    settings: SettingsResource,
    storage: StorageResource,
    progress: ProgressResource,
) -> None:
    """Refuse unless the variant's latest verification is complete and newer than its files; show what is freed."""
    with failures_explained():
        loaded = settings.load()
        verified = stored_verification(storage.artifacts(), config.variant)
        if verified is None:
            raise ModelFilesError(
                f"{config.variant} was never verified: run the job prepare_models for this partition first"
            )
        stash = Path(config.stash) if config.stash else loaded.models_dir / STASH_FOLDER
        layout = layout_of(config.variant, loaded)
        report = delete_stash(layout, stash, verified.report, apply=config.apply, progress=progress.of_bytes(context))
    verb = "deleted" if report.deleted else "would delete (set apply: true to do it)"
    context.log.info(f"{verb} {report.file_count} files, {report.size:,} bytes; frees {report.freed:,}")
    context.add_output_metadata({"files": report.file_count, "bytes": report.size, "freed": report.freed})


@dg.job(description="Delete an old stash of pretrained files once a verified repository holds them.")
def delete_old_stash() -> None:
    """Delete the files of an older installation, as one op."""
    delete_stash_if_verified()
