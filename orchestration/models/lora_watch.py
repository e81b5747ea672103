"""The sensor that sees when a LoRA that clips were made with is replaced in a model's folder ``loras/``.

It looks at the models folder of the process that serves the code location, where workers must have the same files. See
``orchestration.inbox.watched_files`` for what follows from it. Model files are verified on request.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.model_repo.variants import VARIANTS
from libs.model_repo.verification.digests import DigestCache, sha256_of_files
from libs.settings import Settings
from libs.stages.request.requested_lora import path_of_lora
from libs.storage.backends.store import ObjectInfo
from orchestration.inbox.watched_files import FileUse, scan_files
from orchestration.models.models_in_use import ModelVersion, animation_model
from orchestration.storage.observed import FileVersion, observation, observed_versions
from orchestration.storage.resources import SettingsResource


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Observes LoRA files that were replaced under their names after a clip was made with them.",
)
def lora_watch(context: dg.SensorEvaluationContext, settings: SettingsResource) -> dg.SensorResult:
    """One look at the LoRA files of all variants."""
    return scan_files(context.instance, _Loras(settings.load()), context.cursor)


class _Loras:
    """The LoRA files of all variants, by their path below the models folder."""

    def __init__(self, settings: Settings) -> None:
        self._files = {path_of_lora(file, layout): (file, layout) for file, layout in _lora_files(settings)}

    def listing(self) -> Iterable[tuple[str, ObjectInfo]]:
        for path, (file, _) in self._files.items():
            status = file.stat()
            yield path, ObjectInfo(path, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def uses(self, instance: dg.DagsterInstance) -> Mapping[str, list[FileUse]]:
        found: dict[str, list[FileUse]] = defaultdict(list)
        asset = animation_model.key.to_user_string()
        for request_id, text in observed_versions(instance, asset).items():
            for lora in ModelVersion.parse(text).loras:
                found[lora.path].append(FileUse(asset, request_id, lora.sha256, text))
        return found

    def digest(self, path: str) -> str | None:
        file, layout = self._files[path]
        return sha256_of_files([file], DigestCache.beside(layout))[file] if file.is_file() else None

    def observation(self, use: FileUse, path: str, digest: str) -> dg.AssetObservation:
        before = ModelVersion.parse(use.version)
        loras = tuple(FileVersion(digest, path) if lora.path == path else lora for lora in before.loras)
        version = replace(before, loras=loras)
        return observation(use.asset, use.request_id, str(version))


def _lora_files(settings: Settings) -> Iterator[tuple[Path, RepositoryLayout]]:
    for variant in VARIANTS:
        layout = layout_of(variant, settings)
        for file in layout.loras():
            yield file, layout
