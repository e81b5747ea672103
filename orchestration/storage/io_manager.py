"""Every asset's output goes to the artifact store, and every input comes from it.

Outputs are folders of files (``ArtifactFiles``), never pickles; inputs are verified local copies (``LocalArtifact``).
See ``libs.storage`` for how the store keeps its promises.
"""

from shutil import rmtree
from typing import TYPE_CHECKING, Any

import dagster as dg

from libs.errors import MediaError, StorageError
from orchestration.animations.pictures import caption, embedded_pictures, linked_pictures
from orchestration.failures import failures_explained
from orchestration.recovery.lineage import lineage_attributes
from orchestration.storage.resources import StorageResource

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
                asset_name(context),
                partition_of(context),
                obj,
                {"run_id": context.run_id, **lineage_attributes(context)},
            )
        shown = {**self._pictures(context, manifest, obj), **self._link(manifest, obj)}
        rmtree(obj.folder, ignore_errors=True)
        context.add_output_metadata({**storage_metadata(manifest, self.storage.objects().uri), **shown})

    def load_input(self, context: dg.InputContext) -> "LocalArtifact":
        """A local, digest-verified copy of the upstream asset's files.

        Raises:
            dagster.Failure: nothing is stored, or what is stored is corrupt; the message names what to materialize.
        """
        with failures_explained():
            return self.storage.artifacts().fetch(asset_name(context), partition_of(context))

    def _pictures(
        self, context: dg.OutputContext, manifest: "Manifest", files: "ArtifactFiles"
    ) -> dict[str, dg.MetadataValue]:
        """Pictures for the UI: by address where previews are published, otherwise inside the event.

        The artifact itself is stored by now: a picture that cannot be shown is no reason to make it again.
        """
        try:
            previews = self.storage.previews() if files.previews else None
            if previews is not None:
                return linked_pictures(previews.publish(manifest, files))
        except StorageError as error:
            context.log.warning(f"previews are not published: {error}")
        try:
            return embedded_pictures(files.folder, files.previews)
        except MediaError as error:
            context.log.warning(f"previews are not shown: {error}")
            return {}

    def _link(self, manifest: "Manifest", files: "ArtifactFiles") -> dict[str, dg.MetadataValue]:
        """The way to the file a person wants; its address opens for whom the bucket's server lets in."""
        if files.main is None:
            return {}
        address = self.storage.address(manifest.file(files.main).key)
        shown: dict[str, dg.MetadataValue] = {caption(files.main): address}
        if manifest.partition is not None:
            command = f"one-to-all share {manifest.partition} --asset {manifest.asset} --file {files.main}"
            shown["share"] = dg.MetadataValue.text(command)
        return shown


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
