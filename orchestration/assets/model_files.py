"""Model files as assets: the checkpoint, the pose networks and the slimmed Wan resources of each variant.

The weights themselves stay below ``MODELS_DIR``, where workers map them into memory; what is stored is the inventory:
every file with its size and digest. What does not belong here: how files are fetched or made (``libs.model_repo``,
``libs.sandbox``) and judging them (``model_verification``).
"""

import json
from dataclasses import asdict

import dagster as dg

from libs.model_repo.layout import layout_of
from libs.model_repo.lock import LockedFile
from libs.model_repo.repository_files import Part
from orchestration.failures import RETRY_POLICY, failures_explained
from orchestration.model_provision import provide_part
from orchestration.outputs import folder_output
from orchestration.partitions import MODEL_VARIANTS
from orchestration.policies import CODE_VERSIONS, MODELS_GROUP, OWNERS
from orchestration.resources import ProgressResource, ScratchResource, SettingsResource

INVENTORY_FILE = "inventory.json"
ROWS_SHOWN = 60


def _model_files_asset(name: str, part: Part, kinds: set[str], description: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        partitions_def=MODEL_VARIANTS,
        group_name=MODELS_GROUP,
        owners=OWNERS,
        kinds=kinds,
        code_version=CODE_VERSIONS["model_files"],
        description=description,
        retry_policy=RETRY_POLICY,
    )
    def model_files(
        context: dg.AssetExecutionContext,
        settings: SettingsResource,
        scratch: ScratchResource,
        progress: ProgressResource,
    ) -> dg.Output:
        with failures_explained():
            layout = layout_of(context.partition_key, settings.load())
            files = provide_part(layout, part, progress.of(context))
            with scratch.filled_folder(name) as folder:
                inventory = {file: asdict(entry) for file, entry in files.items()}
                (folder / INVENTORY_FILE).write_text(json.dumps(inventory, indent=2))
        return folder_output(folder, _inventory_metadata(files))

    return model_files


def _inventory_metadata(files: dict[str, LockedFile]) -> dict[str, dg.MetadataValue]:
    largest_first = sorted(files.items(), key=lambda item: -item[1].size)
    rows = [
        dg.TableRecord({"file": name, "bytes": entry.size, "sha256": entry.sha256, "source": entry.source})
        for name, entry in largest_first[:ROWS_SHOWN]
    ]
    return {
        "files": dg.MetadataValue.table(rows),
        "files in all": dg.MetadataValue.int(len(files)),
        "bytes": dg.MetadataValue.int(sum(entry.size for entry in files.values())),
    }


one_to_all_checkpoint = _model_files_asset(
    "one_to_all_checkpoint",
    "checkpoint",
    {"pytorch"},
    "The fine-tuned transformer of One-to-All Animation: its shards and their index.",
)
pose_models = _model_files_asset(
    "pose_models",
    "pose_models",
    {"onnx"},
    "Person detector and whole-body pose network.",
)
slimmed_wan_resources = _model_files_asset(
    "slimmed_wan_resources",
    "wan_resources",
    {"pytorch"},
    "VAE, text encoder, tokenizer and scheduler of Wan2.1; the base transformer is not needed and not kept.",
)
