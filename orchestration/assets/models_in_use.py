"""Which model files each request is made with, as observed external assets: the link between the two partition sets.

Model files are partitioned by variant, animations by request. Dagster's own partition mappings cannot say "the variant
that this request names", and one of ours would not be known to the webserver. So each request has a partition in two
external assets, whose observed data version is the digest of the files its variant had when they were last verified.
A verification that finds other bytes observes the new digest for every request of that variant: exactly their clips
become stale, in Dagster's own answers. What does not belong here: verifying (``model_verification``).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping

import dagster as dg

from libs.model_repo.lock import RepositoryLock
from libs.model_repo.report import FileResult, VerificationReport
from libs.model_repo.repository_files import Part
from orchestration.observed import observation
from orchestration.partitions import ANIMATION_REQUESTS, requests_of_variant
from orchestration.policies import MODELS_GROUP, OWNERS

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
    description="The verified checkpoint and Wan resources of the request's model variant.",
    partitions_def=ANIMATION_REQUESTS,
    deps=_FROM_VERIFICATION,
    group_name=MODELS_GROUP,
    owners=OWNERS,
    kinds={"pytorch"},
)

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


def observe_models_of_request(request_id: str, versions: Mapping[str, str]) -> Iterator[dg.AssetObservation]:
    """What ``request_id`` is made with: one observation per asset of ``versions``."""
    for asset, version in versions.items():
        yield observation(asset, request_id, version)


def observe_models_of_variant(
    instance: dg.DagsterInstance, variant: str, versions: Mapping[str, str], previous: Mapping[str, str]
) -> Iterator[dg.AssetObservation]:
    """The same for all requests of ``variant``, for those assets whose version is not the ``previous`` one."""
    changed = {asset: version for asset, version in versions.items() if previous.get(asset) != version}
    for request_id in requests_of_variant(instance, variant):
        yield from observe_models_of_request(request_id, changed)
