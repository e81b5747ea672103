"""The verification of one variant's repository as an asset: a report to store, a table to look at, a check per part.

See ``libs.model_repo.verification.verify`` for how files are judged.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from libs.errors import ModelFilesError
from libs.model_repo.files.repository import PARTS
from libs.model_repo.layout import layout_of
from libs.model_repo.verification.report import FileResult, Level, VerificationReport
from libs.stages.model_verification import StoredVerification, stored_verification, verify_models
from libs.storage.artifacts import ArtifactStore
from orchestration.failures import STEP_RETRIES, failures_explained
from orchestration.models.hub_repositories import observe_new_origins
from orchestration.models.models_in_use import observe_models_of_variant
from orchestration.partitions import MODEL_VARIANTS
from orchestration.policies import CODE_VERSIONS, MODELS_GROUP, OWNERS
from orchestration.storage.outputs import folder_output
from orchestration.storage.resources import ProgressResource, ScratchResource, SettingsResource, StorageResource

ROWS_SHOWN = 60
"""Rows of the table in the UI, wrong files first; an event stays below 50 KB."""


class VerificationConfig(dg.Config):
    """``fast``: layout, sizes, headers, graphs, configurations; ``full``: every byte against the lock file as well."""

    level: str = "fast"


@dg.asset(
    partitions_def=MODEL_VARIANTS,
    deps=["one_to_all_checkpoint", "pose_models", "slimmed_wan_resources"],
    group_name=MODELS_GROUP,
    owners=OWNERS,
    kinds={"python"},
    code_version=CODE_VERSIONS["model_verification"],
    retry_policy=STEP_RETRIES,
    check_specs=[
        dg.AssetCheckSpec(
            f"{part}_complete",
            asset="model_verification",
            blocking=True,
            description=f"Every file of the {part.replace('_', ' ')} is there and is what it should be.",
        )
        for part in PARTS
    ],
)
def model_verification(
    context: dg.AssetExecutionContext,
    config: VerificationConfig,
    settings: SettingsResource,
    storage: StorageResource,
    scratch: ScratchResource,
    progress: ProgressResource,
) -> Iterator[Any]:
    """Look at every file of the variant's repository and report what is complete, incomplete or different."""
    variant = context.partition_key
    with failures_explained():
        layout = layout_of(variant, settings.load())
        previous = previous_verification(storage.artifacts(), variant)
        with scratch.filled_folder("model_verification") as folder:
            found = verify_models(layout, checked_level(config.level), folder, progress.of_bytes(context))
        report = found.report
    yield folder_output(
        folder, report_metadata(report), data_version=" ".join([report.state, *found.versions.values()])
    )
    for part in report.parts:
        yield dg.AssetCheckResult(
            check_name=f"{part.part}_complete",
            passed=part.state == "complete",
            description=part.message,
            metadata={"files": part.file_count, "bytes": part.size, "state": part.state},
        )
    for observation in observe_new_origins(context.instance, variant, found.lock):
        context.log_event(observation)
    if report.state == "complete":
        known = previous.versions if previous else {}
        for observation in observe_models_of_variant(context.instance, variant, found.versions, known):
            context.log_event(observation)


def checked_level(level: str) -> Level:
    """The level of a run's configuration.

    Raises:
        dagster.Failure: neither fast nor full.
    """
    if level == "fast":
        return "fast"
    if level == "full":
        return "full"
    raise dg.Failure(f"level: must be fast or full (found {level!r})", allow_retries=False)


def previous_verification(store: ArtifactStore, variant: str) -> StoredVerification | None:
    """The stored verification; None if it cannot be read, as the next one replaces it."""
    try:
        return stored_verification(store, variant)
    except ModelFilesError as error:
        logging.getLogger(__name__).warning("%s", error)
        return None


def report_metadata(report: VerificationReport) -> Mapping[str, dg.MetadataValue]:
    """The report as the UI shows it."""
    wrong_first = sorted(report.files, key=lambda file: (file.state == "complete", file.file))
    shown: dict[str, dg.MetadataValue] = {
        "state": dg.MetadataValue.text(report.state),
        "level": dg.MetadataValue.text(report.level),
        "bytes": dg.MetadataValue.int(report.size),
        "seconds": dg.MetadataValue.float(report.seconds),
        "folder": dg.MetadataValue.path(report.folder),
        "files": dg.MetadataValue.table([_row(file) for file in wrong_first[:ROWS_SHOWN]]),
        "files in all": dg.MetadataValue.int(len(report.files)),
    }
    if report.warnings:
        shown["warnings"] = dg.MetadataValue.md("\n".join(f"- {warning}" for warning in report.warnings))
    return shown


def _row(file: FileResult) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "file": file.file,
            "state": file.state,
            "bytes": file.size if file.size is not None else -1,
            "sha256": file.sha256 or "",
            "problem": file.problem or "",
        }
    )
