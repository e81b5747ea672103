"""Can this host make a run? Not without its model files, with a full disk, or with other code than the code location's.

A fault of a host is not the fault of the run, which another host can make. See ``run_gate`` for what follows
from the answer, ``orchestration.fleet.gpus.gpu_check`` for the GPU.
"""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from redis.exceptions import RedisError

from libs.errors import ModelFilesError, OneToAllError
from libs.settings import Settings, load_settings
from orchestration.dagster_internals import PARTITION_NAME_TAG
from orchestration.fleet.launching.code_version import announced_code, code_version
from orchestration.fleet.run_coordinator import CPU_QUEUE, queue_of
from orchestration.requests.runs import makes_a_clip

if TYPE_CHECKING:
    from libs.model_repo.verification.lock import RepositoryLock
    from libs.model_repo.verification.report import VerificationReport
    from libs.stages.model_verification import StoredVerification

_BYTES_PER_GB = 10**9

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Unfit:
    """Why a host cannot make a run; ``variant`` where it lacks the files of that one."""

    reason: str
    variant: str | None = None


@dataclass
class HostCheck:
    """Checks whether this host can make a run: before each run, and repeatedly while the worker pauses."""

    redis_url: str
    code: str = field(default_factory=code_version)
    lacking: set[str] = field(default_factory=set)
    """The variants that the main process waits for."""

    def why_unfit(self, run: dg.DagsterRun) -> Unfit | None:
        """The reason why this host cannot make ``run``; None if it can, or if that cannot be determined."""
        if reason := self.other_code():
            return Unfit(reason)
        if queue_of(run) == CPU_QUEUE:  # housekeeping must be able to free the disk, and to fetch files
            return None
        settings = load_settings()
        if reason := full_disk(settings):
            return Unfit(reason)
        variant = variant_of(run)
        reason = missing_models(variant, settings) if variant else None
        return Unfit(reason, variant) if reason else None

    def why_still_unfit(self) -> str | None:
        """The reason why the worker must still pause; None once the cause is gone."""
        settings = load_settings()
        if reason := self.other_code() or full_disk(settings):
            return reason
        for variant in sorted(self.lacking):
            if reason := missing_models(variant, settings):
                return reason
            self.lacking.discard(variant)
        return None

    def other_code(self, announced: Callable[[str], str | None] = announced_code) -> str | None:
        """The reason why the code here is not the code location's; None if it is, or if that is unknown."""
        try:
            theirs = announced(self.redis_url)
        except RedisError:
            return None
        if theirs in {None, self.code}:
            return None
        return (
            f"this worker runs code {self.code}, the code location {theirs}: install the same version on every host, "
            "and start the worker again"
        )


def full_disk(settings: Settings) -> str | None:
    """Which disk has less free than MIN_FREE_DISK_GB; None if none has."""
    least = settings.min_free_disk_gb
    for folder in (settings.data_dir, settings.one_to_all_runtime_dir):
        free = shutil.disk_usage(_existing(folder)).free / _BYTES_PER_GB
        if free < least:
            return f"{free:.1f} GB are free for {folder} (MIN_FREE_DISK_GB={least:g}): free some"
    return None


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def variant_of(run: dg.DagsterRun) -> str | None:
    """The variant that a clip's request names; None for other runs, and where the request cannot be read now."""
    from libs.requests.lifecycle.accepted import AcceptedRequests  # noqa: PLC0415 - the main process stays light
    from orchestration.storage.resources import SettingsResource, StorageResource  # noqa: PLC0415

    request_id = run.tags.get(PARTITION_NAME_TAG)
    if request_id is None or not makes_a_clip(run):
        return None
    try:
        accepted = AcceptedRequests(StorageResource(settings=SettingsResource()).objects()).find(request_id)
    except OneToAllError as error:
        logger.warning("Cannot tell what %s is made with: %s", request_id, error)
        return None
    return accepted.request.model if accepted else None


def missing_models(variant: str, settings: Settings) -> str | None:
    """What this host lacks of a variant that was verified on another one; None if nothing.

    A variant that no host has is the request's affair: its run ends with that message.
    """
    from libs.model_repo.layout import layout_of  # noqa: PLC0415 - the main process stays light
    from libs.model_repo.verification.verify import lock_or_problems, verify_repository  # noqa: PLC0415
    from libs.stages.model_verification import stored_verification  # noqa: PLC0415
    from orchestration.storage.resources import SettingsResource, StorageResource  # noqa: PLC0415

    try:
        verified = stored_verification(StorageResource(settings=SettingsResource()).artifacts(), variant)
    except OneToAllError as error:
        logger.warning("Cannot tell whether %s was verified: %s", variant, error)
        return None
    if verified is None or verified.report.state != "complete":
        return None
    way_out = f"run `one-to-all models prepare {variant}` on this host"
    try:
        layout = layout_of(variant, settings)
        report = verify_repository(layout, level="fast")
        report.raise_if_not_complete()
    except (ModelFilesError, OSError) as error:
        return f"{variant} is not ready here: {error}; {way_out}"
    if verified.report.locked and not report.locked:
        return f"{variant} was never verified here, and its files are in no lock file; {way_out}"
    if different := _what_differs(report, lock_or_problems(layout)[0], verified):
        way_out += ", or the job prepare_models if these are the right ones"
        return f"{variant} is not the verified one here: {different}; {way_out}"
    return None


def _what_differs(report: "VerificationReport", lock: "RepositoryLock | None", verified: "StoredVerification") -> str:
    """Describe how the files here differ from the verified ones; empty if they do not.

    Large files are not read for this: where their digest was never found out here, it is that of the lock file.
    """
    from libs.stages.model_verification import versions_in_use  # noqa: PLC0415

    known = {file.file: file.sha256 for file in verified.report.files if file.sha256}
    for file in report.files:
        if file.sha256 and known.get(file.file, file.sha256) != file.sha256:
            return f"{file.file} differs"
    here = versions_in_use(report, lock) if verified.report.locked else {}
    parts = [asset for asset, version in here.items() if verified.versions.get(asset, version) != version]
    return f"its lock file names other files for {' and '.join(parts)}" if parts else ""
