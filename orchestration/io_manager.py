"""Every asset's output goes to the artifact store, and every input comes from it.

Outputs are folders of files (``ArtifactFiles``), never pickles; inputs are verified local copies (``LocalArtifact``).
What does not belong here: how the store keeps its promises (``libs.storage``), and what an asset writes.
"""

from shutil import rmtree
from typing import TYPE_CHECKING, Any

import dagster as dg

from libs.errors import StorageError
from orchestration.failures import failures_explained
from orchestration.resources import StorageResource

if TYPE_CHECKING:
    from libs.storage.artifacts import ArtifactFiles, LocalArtifact
    from libs.storage.manifest import Manifest

DIGEST_METADATA = "digest"
"""The metadata entry that says which content a materialization stored."""


class ArtifactIOManager(dg.ConfigurableIOManager):
    """Publishes an asset's files under its key and partition; loads what the newest manifest names."""

    storage: dg.ResourceDependency[StorageResource]

    def handle_output(self, context: dg.OutputContext, obj: "ArtifactFiles") -> None:
        """Store the files, manifest last, then remove the scratch folder.

        The folder stays when storing fails for good, so that work that took hours is not lost.
        """
        with failures_explained():
            manifest = self.storage.artifacts().publish(
                asset_name(context), partition_of(context), obj, {"run_id": context.run_id}
            )
        shown = self._publish_previews(context, manifest, obj)
        rmtree(obj.folder, ignore_errors=True)
        context.add_output_metadata({**storage_metadata(manifest, self.storage.objects().uri), **shown})

    def load_input(self, context: dg.InputContext) -> "LocalArtifact":
        """A local, digest-verified copy of the upstream asset's files.

        Raises:
            dagster.Failure: nothing is stored, or what is stored is corrupt; the message names what to materialize.
        """
        with failures_explained():
            return self.storage.artifacts().fetch(asset_name(context), partition_of(context))

    def _publish_previews(
        self, context: dg.OutputContext, manifest: "Manifest", files: "ArtifactFiles"
    ) -> dict[str, dg.MetadataValue]:
        """Pictures by their address for the UI; none where previews are not published, or that fails."""
        previews = self.storage.previews() if files.previews else None
        if previews is None:
            return {}
        try:
            addresses = previews.publish(manifest, files)
        except StorageError as error:  # the artifact itself is stored: no reason to make it again
            context.log.warning(f"previews are not published: {error}")
            return {}
        return {f"{name} preview": dg.MetadataValue.md(f"![{name}]({url})") for name, url in addresses.items()}


def asset_name(context: dg.InputContext | dg.OutputContext) -> str:
    """The asset's key as one name; keys of this project have one component."""
    return context.asset_key.to_user_string()


def partition_of(context: dg.InputContext | dg.OutputContext) -> str | None:
    """The single partition of this output or input, None for an asset without partitions."""
    return context.asset_partition_key if context.has_asset_partitions else None


def storage_metadata(manifest: "Manifest", uri: Any) -> dict[str, dg.MetadataValue]:
    """What the UI shows of a stored artifact: one row per file, the digest, the size."""
    files = [
        dg.TableRecord({"file": file.name, "bytes": file.size, "sha256": file.sha256, "stored at": uri(file.key)})
        for file in manifest.files
    ]
    return {
        "stored files": dg.MetadataValue.table(files),
        DIGEST_METADATA: dg.MetadataValue.text(manifest.digest),
        "size": dg.MetadataValue.int(sum(file.size for file in manifest.files)),
    }
