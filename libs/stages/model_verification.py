"""Stage: look at every file of a variant's repository; and what the last such look found, as it is stored.

See ``libs.model_repo.verification.verify`` for how files are judged.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from libs.errors import ModelFilesError
from libs.model_repo.files.repository import Part
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.verification.lock import RepositoryLock
from libs.model_repo.verification.report import FileResult, Level, VerificationReport
from libs.model_repo.verification.verify import lock_or_problems, verify_repository
from libs.progress import Progress
from libs.stages.request.requested_models import VERIFICATION
from libs.storage.artifacts import ArtifactStore

REPORT_FILE = "verification.json"
VERSIONS_FILE = "versions.json"

PARTS_IN_USE: dict[str, tuple[Part, ...]] = {
    "pose_networks": ("pose_models",),
    "animation_model": ("checkpoint", "wan_resources"),
}
"""External asset -> the parts of a repository that it stands for (``orchestration.models.models_in_use``)."""


@dataclass(frozen=True)
class ModelVerification:
    """What a verification found, and the lock it compared with."""

    report: VerificationReport
    versions: dict[str, str]
    lock: RepositoryLock | None


@dataclass(frozen=True)
class StoredVerification:
    """The newest stored report of a variant, and the versions of what requests use (``PARTS_IN_USE``)."""

    report: VerificationReport
    versions: dict[str, str]


def verify_models(layout: RepositoryLayout, level: Level, folder: Path, progress: Progress) -> ModelVerification:
    """Verify the repository and write the report and the versions into ``folder``."""
    report = verify_repository(layout, level=level, progress=progress)
    lock, _ = lock_or_problems(layout)
    versions = versions_in_use(report, lock)
    (folder / REPORT_FILE).write_text(report.to_json())
    (folder / VERSIONS_FILE).write_text(json.dumps(versions, indent=2))
    return ModelVerification(report, versions, lock)


def versions_in_use(report: VerificationReport, lock: RepositoryLock | None) -> dict[str, str]:
    """Asset name -> one sha256 over the names and digests of all its files; equal exactly when every byte is.

    A digest that the report does not know (level fast, on a machine that never hashed the file) is taken from the lock,
    which the report compared sizes with; a file in no lock counts with its size.
    """
    versions = {}
    for asset, parts in PARTS_IN_USE.items():
        rows = [(file.file, _digest_or_size(file, lock)) for file in report.files if file.part in parts]
        versions[asset] = hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest()
    return versions


def stored_verification(store: ArtifactStore, variant: str) -> StoredVerification | None:
    """What the last verification of ``variant`` found, None when there never was one.

    Raises:
        ModelFilesError: what is stored of it cannot be read; the message says how it is made again.
    """
    if store.manifest(VERIFICATION, variant) is None:
        return None
    artifact = store.fetch(VERIFICATION, variant)
    try:
        return StoredVerification(
            VerificationReport.from_json(artifact.path(REPORT_FILE).read_text()),
            _versions(artifact.path(VERSIONS_FILE).read_text()),
        )
    except (ModelFilesError, ValueError, RecursionError) as error:
        raise ModelFilesError(
            f"the stored verification of {variant} cannot be read ({error}); materialize model_verification for "
            f"partition {variant!r} again"
        ) from None


def verified_versions(store: ArtifactStore, variant: str) -> dict[str, str] | None:
    """Asset name -> version of the verified files of ``variant``; None when it never was verified.

    Raises:
        ModelFilesError: what is stored cannot be read.
    """
    verified = stored_verification(store, variant)
    return verified.versions if verified else None


def _digest_or_size(file: FileResult, lock: RepositoryLock | None) -> str:
    locked = lock.files.get(file.file) if lock else None
    return file.sha256 or (locked.sha256 if locked else f"{file.size} bytes")


def _versions(text: str) -> dict[str, str]:
    """What ``versions_in_use`` gave.

    Raises:
        ModelFilesError: the text says something else.
    """
    versions = json.loads(text)
    if not isinstance(versions, dict) or not all(isinstance(version, str) for version in versions.values()):
        raise ModelFilesError(f"{VERSIONS_FILE}: names and versions are expected")
    return versions
