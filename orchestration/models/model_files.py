"""Model files as assets: the checkpoint, the pose networks and the slimmed Wan resources of each variant.

The weights themselves stay below ``MODELS_DIR``, where workers map them into memory; what is stored is the inventory:
every file with its size and digest. See ``libs.model_repo`` and ``libs.sandbox`` for how files are
fetched or made, ``model_verification`` for judging them.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import dagster as dg

from libs.model_repo.files.repository import Part
from libs.model_repo.layout import layout_of
from libs.model_repo.operations.slim import SlimReport, slim_wan_resources
from libs.model_repo.verification.lock import LockedFile
from libs.settings import Settings
from libs.stages.model_files import PartJob, provide_part
from orchestration.failures import STEP_RETRIES, failures_explained
from orchestration.models.hub_repositories import (
    checkpoint_repository,
    observe_repository,
    pose_repositories,
    wan_repository,
)
from orchestration.partitions import MODEL_VARIANTS
from orchestration.policies import CODE_VERSIONS, MODELS_GROUP, OWNERS
from orchestration.storage.observed import observe_inputs
from orchestration.storage.outputs import folder_output
from orchestration.storage.resources import ProgressResource, ScratchResource, SettingsResource

INVENTORY_FILE = "inventory.json"
ROWS_SHOWN = 60

_POLICY: dict[str, Any] = {
    "partitions_def": MODEL_VARIANTS,
    "group_name": MODELS_GROUP,
    "owners": OWNERS,
    "code_version": CODE_VERSIONS["model_files"],
    "retry_policy": STEP_RETRIES,
}


class HubConfig(dg.Config):
    """Options of a download; what is left out comes from MODEL_HUB, MODEL_HUB_ENDPOINT and MODEL_HUB_REVISION."""

    hub: str | None = None
    """modelscope or huggingface"""
    endpoint: str | None = None
    """address of a mirror"""
    revision: str | None = None
    """branch, tag or commit; that of the lock file by default"""
    update: bool = False
    """accept another revision than the locked one"""
    workers: int = 4
    """files fetched at the same time"""

    def job(self, variant: str, part: Part, settings: Settings, *, with_base_transformer: bool = False) -> PartJob:
        """What is wanted of the repository of ``variant``.

        Raises:
            SettingsError: no such hub, or no address.
        """
        return PartJob(
            layout_of(variant, settings),
            part,
            settings.changed(model_hub=self.hub, model_hub_endpoint=self.endpoint, model_hub_revision=self.revision),
            update=self.update,
            workers=self.workers,
            with_base_transformer=with_base_transformer,
        )


class WanResourcesConfig(HubConfig):
    """Fetching as for the other parts, and slimming what an earlier download left."""

    with_base_transformer: bool = False
    """also fetch Wan's own transformer/, which animating does not need"""
    apply: bool = False
    """remove what is not needed; otherwise only report it"""


@dg.asset(kinds={"pytorch"}, deps=[checkpoint_repository], **_POLICY)
def one_to_all_checkpoint(
    context: dg.AssetExecutionContext,
    config: HubConfig,
    settings: SettingsResource,
    scratch: ScratchResource,
    progress: ProgressResource,
) -> dg.Output:
    """The fine-tuned transformer of One-to-All Animation: its shards and their index."""
    with failures_explained():
        job = config.job(context.partition_key, "checkpoint", settings.load())
        files = provide_part(job, progress.of_bytes(context))
    return _inventory(context, job.part, scratch, files)


@dg.asset(kinds={"onnx"}, deps=["migrated_pretrained_models", pose_repositories], **_POLICY)
def pose_models(
    context: dg.AssetExecutionContext,
    config: HubConfig,
    settings: SettingsResource,
    scratch: ScratchResource,
    progress: ProgressResource,
) -> dg.Output:
    """Person detector and whole-body pose network."""
    with failures_explained():
        job = config.job(context.partition_key, "pose_models", settings.load())
        files = provide_part(job, progress.of_bytes(context))
    return _inventory(context, job.part, scratch, files)


@dg.asset(kinds={"pytorch"}, deps=["migrated_pretrained_models", wan_repository], **_POLICY)
def slimmed_wan_resources(
    context: dg.AssetExecutionContext,
    config: WanResourcesConfig,
    settings: SettingsResource,
    scratch: ScratchResource,
    progress: ProgressResource,
) -> dg.Output:
    """VAE, text encoder, tokenizer and scheduler of Wan2.1, without the base transformer."""
    with_base = config.with_base_transformer
    with failures_explained():
        job = config.job(context.partition_key, "wan_resources", settings.load(), with_base_transformer=with_base)
        files = provide_part(job, progress.of_bytes(context))
        slimmed = slim_wan_resources(job.layout, apply=config.apply and not with_base)
    return _inventory(context, job.part, scratch, files, _slimming(slimmed))


def _inventory(
    context: dg.AssetExecutionContext,
    part: Part,
    scratch: ScratchResource,
    files: dict[str, LockedFile],
    more: Mapping[str, dg.MetadataValue] | None = None,
) -> dg.Output:
    observe_inputs(context, [observe_repository(part, context.partition_key, files)])
    with scratch.filled_folder("inventory") as folder:
        inventory = {name: asdict(entry) for name, entry in files.items()}
        (folder / INVENTORY_FILE).write_text(json.dumps(inventory, indent=2))
    largest_first = sorted(files.items(), key=lambda item: -item[1].size)
    rows = [
        dg.TableRecord({"file": name, "bytes": entry.size, "sha256": entry.sha256, "source": entry.source})
        for name, entry in largest_first[:ROWS_SHOWN]
    ]
    return folder_output(
        folder,
        {
            "files": dg.MetadataValue.table(rows),
            "files in all": len(files),
            "bytes": sum(entry.size for entry in files.values()),
            **(more or {}),
        },
    )


def _slimming(report: SlimReport) -> dict[str, dg.MetadataValue]:
    verb = "removed" if report.applied else "would go"
    rows = [
        dg.TableRecord({"what": str(removal.path), verb: removal.size, "frees": removal.freed})
        for removal in report.removals[:ROWS_SHOWN]
    ]
    if not rows:
        return {"slimming": dg.MetadataValue.text("nothing to remove")}
    return {"slimming": dg.MetadataValue.table(rows), f"bytes {verb}": dg.MetadataValue.int(report.size)}
