"""An address for one stored file, to be given to a person: signed and short-lived in a bucket, a path in a folder.

The address is a key to the file: it is returned to who asked, and never logged or stored. See ``previews`` for
addresses that do not expire.
"""

from datetime import timedelta
from pathlib import PurePosixPath

from libs.errors import ArtifactCorruptError, ArtifactMissingError, InputError
from libs.messages.durations import show_duration
from libs.settings import Settings
from libs.storage.artifacts import ArtifactStore, materialize_command
from libs.storage.backends.client import create_s3_client
from libs.storage.backends.folder import FolderObjectStore
from libs.storage.manifest import Manifest, describe

LONGEST = timedelta(days=7)
"""What signature version 4 allows."""


def share(
    store: ArtifactStore, settings: Settings, asset: str, partition: str | None, name: str, expires: timedelta
) -> str:
    """The address of the file ``name`` of the newest artifact; it works for ``expires`` from now on.

    In a folder it is the file's path, and nothing expires. Browsers save the file as ``<partition>.<suffix>``.

    Raises:
        ArtifactMissingError: nothing is stored, or the artifact has no such file.
        ArtifactCorruptError: the file is gone, or has another size than it should.
        InputError: ``expires`` is not between a second and seven days.
    """
    if not timedelta(seconds=1) <= expires <= LONGEST:
        raise InputError(f"--expires must be between 1s and {LONGEST.days}d, got {show_duration(expires)}")
    manifest = _require_manifest(store, asset, partition)
    file = manifest.file(name)
    stored = store.objects.head(file.key)
    if stored is None or stored.size != file.size:
        raise ArtifactCorruptError(
            f"{describe(asset, partition)}: {name} is incomplete (object {store.objects.uri(file.key)}); "
            f"run: {materialize_command(asset, partition)}"
        )
    if isinstance(store.objects, FolderObjectStore):
        return str(store.objects.root / file.key)
    saved_as = f"{partition or asset}{PurePosixPath(name).suffix}"
    # Signing happens here, without a word to the server; the signature holds for the address that browsers use.
    public = settings.changed(s3_endpoint=settings.s3_public_endpoint)
    url: str = create_s3_client(public).generate_presigned_url(
        "get_object",
        Params={
            "Bucket": settings.s3_bucket_name,
            "Key": f"{settings.s3_prefix}/{file.key}" if settings.s3_prefix else file.key,
            "ResponseContentDisposition": f'inline; filename="{saved_as}"',
        },
        ExpiresIn=int(expires.total_seconds()),
    )
    return url


def _require_manifest(store: ArtifactStore, asset: str, partition: str | None) -> Manifest:
    manifest = store.manifest(asset, partition)
    if manifest is None:
        raise ArtifactMissingError(
            f"{describe(asset, partition)}: nothing is stored; run: {materialize_command(asset, partition)}"
        )
    return manifest
