"""Which model files each request is made with, as observed external assets: the link between the two partition sets.

Model files are partitioned by variant, animations by request. Dagster's own partition mappings cannot say "the variant
that this request names", and one of ours would not be known to the webserver. So each request has a partition in two
external assets, whose observed data version is the digest of the files its variant had when they were last verified.
A verification that finds other bytes observes the new digest for every request of that variant: exactly their clips
become stale, in Dagster's own answers. A LoRA that a request names belongs to the files its clip is made with; people
replace it without verifying anything, so the sensor ``lora_watch`` looks after it. What does not belong here: verifying
(``model_verification``).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from libs.model_repo.files.repository import Part
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.verification.lock import RepositoryLock
from libs.model_repo.verification.report import FileResult, VerificationReport
from orchestration.partitions import ANIMATION_REQUESTS, requests_of_variant
from orchestration.policies import MODELS_GROUP, OWNERS
from orchestration.storage.observed import FileVersion, observation, observed_versions

_FROM_VERIFICATION = [dg.AssetDep("model_verification", partition_mapping=dg.AllPartitionMapping())]

pose_networks = dg.AssetSpec(
    "pose_networks",
    description="The verified pose networks of the request's model variant.",
    partitions_def=ANIMATION_REQUESTS,
    deps=_FROM_VERIFICATION,
    group_name=MODELS_GROUP,
    owners=OWNERS,
    kinds={"onnx"},
)

animation_model = dg.AssetSpec(
    "animation_model",
    description="The verified checkpoint and Wan resources of the request's model variant, and the LoRA it names.",
    partitions_def=ANIMATION_REQUESTS,
    deps=_FROM_VERIFICATION,
    group_name=MODELS_GROUP,
    owners=OWNERS,
    kinds={"pytorch"},
)

_MODEL_OF_CLIP = animation_model.key.to_user_string()
_WITH_LORA = " with LoRA "

PARTS_IN_USE: dict[str, tuple[Part, ...]] = {
    "pose_networks": ("pose_models",),
    "animation_model": ("checkpoint", "wan_resources"),
}


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


def _digest_or_size(file: FileResult, lock: RepositoryLock | None) -> str:
    locked = lock.files.get(file.file) if lock else None
    return file.sha256 or (locked.sha256 if locked else f"{file.size} bytes")


@dataclass(frozen=True)
class ModelVersion:
    """The observed version of ``animation_model``: of the verified files, and of the LoRA added to them.

    Without a LoRA it is the digest alone.
    """

    files: str
    lora: FileVersion | None = None

    def __str__(self) -> str:
        return f"{self.files}{_WITH_LORA}{self.lora}" if self.lora else self.files

    @classmethod
    def parse(cls, version: str) -> "ModelVersion":
        """What :meth:`__str__` wrote."""
        files, _, lora = version.partition(_WITH_LORA)
        return cls(files, FileVersion.parse(lora) if lora else None)


def path_of_lora(file: Path, layout: RepositoryLayout) -> str:
    """How observed versions call a LoRA: its path below the models folder."""
    return file.relative_to(layout.root.parent).as_posix()


def observe_models_of_request(
    request_id: str, variant: str, versions: Mapping[str, str], lora: FileVersion | None
) -> Iterator[dg.AssetObservation]:
    """What ``request_id`` is made with: one observation per asset of ``versions``, which are those of ``variant``."""
    for asset, version in versions.items():
        used = lora if asset == _MODEL_OF_CLIP else None
        shown: dict[str, dg.MetadataValue] = {"model": dg.MetadataValue.text(variant)}
        if used:
            shown["lora"] = dg.MetadataValue.text(used.path)
        yield observation(asset, request_id, str(ModelVersion(version, used)), shown)


def observe_replaced_lora(
    instance: dg.DagsterInstance, request_id: str, variant: str, versions: Mapping[str, str], lora: FileVersion
) -> Iterator[dg.AssetObservation]:
    """What the clip is made with, where the LoRA is another one than when the request was validated."""
    files = versions[_MODEL_OF_CLIP]
    if observed_versions(instance, _MODEL_OF_CLIP, [request_id]).get(request_id) != str(ModelVersion(files, lora)):
        yield from observe_models_of_request(request_id, variant, {_MODEL_OF_CLIP: files}, lora)


def observe_models_of_variant(
    instance: dg.DagsterInstance, variant: str, versions: Mapping[str, str], previous: Mapping[str, str]
) -> Iterator[dg.AssetObservation]:
    """Those of ``versions`` that are not the ``previous`` ones, for all requests of ``variant``; LoRAs stay theirs."""
    changed = {asset: version for asset, version in versions.items() if previous.get(asset) != version}
    requests = requests_of_variant(instance, variant)
    if not changed or not requests:
        return
    observed = observed_versions(instance, _MODEL_OF_CLIP, requests)
    for request_id in requests:
        before = observed.get(request_id)
        lora = ModelVersion.parse(before).lora if before else None
        yield from observe_models_of_request(request_id, variant, changed, lora)
