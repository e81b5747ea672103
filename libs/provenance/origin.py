"""Collects what determines a clip from what a run has in its hands.

See ``record`` for what is recorded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from libs.model_repo.files.repository import PARTS
from libs.model_repo.verification.lock import RepositoryLock
from libs.one_to_all.options import SamplingOptions
from libs.one_to_all.sampling.approximation import EXACT
from libs.provenance.environment import library_versions
from libs.provenance.record import ClipOrigin, Device, InputFile, ModelFiles
from libs.requests.documents.animation_request import ResolvedRequest
from libs.storage.manifest import content_digest

_IN_THE_REQUEST = {"prompt", "negative_prompt"}


@dataclass(frozen=True)
class OriginFacts:
    """What a run knows before it samples.

    Args:
        request: the resolved request.
        reference_sha256, driver_sha256: of the media's bytes.
        pose_conditioning: digest of the stored conditioning.
        lock: of the model repository, None if it has none.
        code_version: version of the stage that samples.
        device: what will compute.
        lora_sha256s: of the LoRAs the request names, in its order.
    """

    request: ResolvedRequest
    reference_sha256: str
    driver_sha256: str
    pose_conditioning: str
    lock: RepositoryLock | None
    code_version: str
    device: Device
    lora_sha256s: tuple[str, ...] = ()

    def origin(self, options: SamplingOptions) -> ClipOrigin:
        """Everything that determines a clip sampled with ``options``."""
        return ClipOrigin(
            request=self.request.clip_fields(),
            reference=InputFile(path=self.request.reference, sha256=self.reference_sha256),
            driver=InputFile(path=self.request.driver, sha256=self.driver_sha256),
            pose_conditioning=self.pose_conditioning,
            model=ModelFiles.with_loras(self.request.model, lock_digests(self.lock), self.lora_sha256s),
            engine=_described(options),
            code_version=self.code_version,
            libraries=library_versions(),
            device=self.device,
        )


def _described(options: SamplingOptions) -> dict[str, Any]:
    """The options that the request does not hold; approximations are left out for an exact clip."""
    left_out = _IN_THE_REQUEST | ({"approximation"} if options.approximation == EXACT else set())
    return {name: value for name, value in options.describe().items() if name not in left_out}


def lock_digests(lock: RepositoryLock | None) -> Mapping[str, str]:
    """Part of the repository -> SHA-256 over the names and digests of its files; equal exactly when they all are."""
    if lock is None:
        return {}
    files = {part: lock.of_part(part) for part in PARTS}
    return {
        part: content_digest((name, file.sha256) for name, file in entries.items())
        for part, entries in files.items()
        if entries
    }
