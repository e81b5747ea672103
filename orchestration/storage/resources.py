"""Dagster resources: thin doors to ``libs`` that runs share.

Settings are read when a run starts, so neither definitions nor the UI's configuration ever hold a secret. See
``libs.storage.backends`` for clients and stores.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING
from urllib.parse import quote

import dagster as dg

from libs.progress import Progress, progress_lines
from libs.settings import Settings, load_settings

if TYPE_CHECKING:
    from libs.storage.artifacts import ArtifactStore
    from libs.storage.backends.s3 import S3ObjectStore
    from libs.storage.backends.store import ObjectStore
    from libs.storage.previews import PublicPreviews


class SettingsResource(dg.ConfigurableResource):
    """The settings of this process, read again for each run: a changed ``.env`` counts from the next run on."""

    def load(self) -> Settings:
        """Environment and ``.env`` as typed settings.

        Raises:
            SettingsError: names the wrong variable.
        """
        dotenv = Settings.model_config.get("env_file")
        return _load_settings(frozenset(os.environ.items()), _state_of(dotenv))


@lru_cache(maxsize=1)
def _load_settings(environment: frozenset[tuple[str, str]], dotenv: object) -> Settings:
    """The settings while neither environment nor ``.env`` changes: a run asks for them about a hundred times."""
    del environment, dotenv  # they tell one state from another
    return load_settings()


def _state_of(file: object) -> object:
    """What changes when ``file`` is written, replaced, made or removed."""
    if not isinstance(file, str | Path):
        return None
    try:
        status = Path(file).stat()
    except OSError as error:
        return file, error.errno
    return file, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class StorageResource(dg.ConfigurableResource):
    """The artifact store of the settings: S3 or MinIO with one client for all steps of a process, or a folder."""

    settings: dg.ResourceDependency[SettingsResource]

    def objects(self) -> "ObjectStore":
        """The bucket, or the folder that stands in for it.

        Raises:
            SettingsError: S3 is half configured.
        """
        from libs.storage.backends.client import shared_s3_client  # noqa: PLC0415 - loading the code location stays light
        from libs.storage.backends.factory import objects_from_settings  # noqa: PLC0415

        return objects_from_settings(self.settings.load(), shared_s3_client)

    def previews(self) -> "PublicPreviews | None":
        """The store of public previews; None without a bucket or ``S3_PUBLIC_ENDPOINT``."""
        settings = self.settings.load()
        if not settings.uses_s3 or settings.s3_public_endpoint is None:
            return None
        from libs.storage.previews import PublicPreviews  # noqa: PLC0415

        return PublicPreviews(_bucket(settings), settings.s3_public_endpoint)

    def address(self, key: str) -> dg.MetadataValue:
        """The address at which a person finds the object ``key``, without signature; a path if there is no bucket."""
        settings = self.settings.load()
        if not settings.uses_s3:
            return dg.MetadataValue.path(settings.artifacts_dir / key)
        objects = _bucket(settings)
        server = (settings.s3_public_endpoint or settings.s3_endpoint or "").rstrip("/")
        return dg.MetadataValue.url(f"{server}/{objects.bucket}/{quote(objects.full_key(key))}")

    def artifacts(self) -> "ArtifactStore":
        """The store of published asset outputs."""
        from libs.storage.artifacts import ArtifactStore  # noqa: PLC0415

        return ArtifactStore(self.objects(), self.settings.load().artifact_cache_dir)


def _bucket(settings: Settings) -> "S3ObjectStore":
    from libs.storage.backends.client import shared_s3_client  # noqa: PLC0415
    from libs.storage.backends.factory import bucket_from_settings  # noqa: PLC0415

    return bucket_from_settings(settings, shared_s3_client)


class ScratchResource(dg.ConfigurableResource):
    """Folders for files on their way into the store, below ``ONE_TO_ALL_RUNTIME_DIR``."""

    settings: dg.ResourceDependency[SettingsResource]

    def root(self) -> Path:
        """The parent folder of all scratch folders; may not exist yet."""
        return self.settings.load().one_to_all_runtime_dir / "scratch"

    def new_folder(self, asset: str) -> Path:
        """A fresh folder; the IO manager removes it once its files are published."""
        root = self.root()
        root.mkdir(parents=True, exist_ok=True)
        return Path(mkdtemp(prefix=f"{asset}-", dir=root))

    @contextmanager
    def filled_folder(self, asset: str) -> Iterator[Path]:
        """A fresh folder that disappears when filling it fails, and stays for the IO manager when it succeeds."""
        folder = self.new_folder(asset)
        try:
            yield folder
        except BaseException:
            rmtree(folder, ignore_errors=True)
            raise


class ProgressResource(dg.ConfigurableResource):
    """The target of stages' progress reports: a run's log by default, a terminal for the demo."""

    def of(self, context: dg.AssetExecutionContext) -> Progress:
        """The progress of this step, written to the run's log at most every few seconds."""
        return progress_lines(context.log.info)

    def of_bytes(self, context: dg.OpExecutionContext | dg.AssetExecutionContext) -> Progress:
        """The progress of work on model files, as log lines with rate and time left."""
        return progress_lines(context.log.info, in_bytes=True)
