"""Which model files each request is made with, as observed external assets: the link between the two partition sets.

Model files are partitioned by variant, animations by request. Dagster's own partition mappings cannot say "the variant
that this request names", and one of ours would not be known to the webserver. So each request has a partition in two
external assets, whose observed data version is the digest of the files its variant had when they were last verified.
A verification that finds other bytes observes the new digest for every request of that variant: exactly their clips
become stale, in Dagster's own answers. A LoRA that a request names belongs to the files its clip is made with; people
replace it without verifying anything, so the sensor ``lora_watch`` looks after it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from libs.requests.documents.animation_request import ResolvedRequest
from orchestration.partitions import ANIMATION_REQUESTS, requests_of_variant
from orchestration.policies import MODELS_GROUP, OWNERS
from orchestration.storage.observed import FileVersion, observation, observe_inputs, observed_versions

if TYPE_CHECKING:
    from libs.stages.request.requested_lora import RequestedLora

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
    description="The verified checkpoint and Wan resources of the request's model variant, and the LoRAs it names.",
    partitions_def=ANIMATION_REQUESTS,
    deps=_FROM_VERIFICATION,
    group_name=MODELS_GROUP,
    owners=OWNERS,
    kinds={"pytorch"},
)

_MODEL_OF_CLIP = animation_model.key.to_user_string()
_WITH_LORA = " with LoRA "


@dataclass(frozen=True)
class ModelVersion:
    """The observed version of ``animation_model``: of the verified files, and of the LoRAs added to them.

    Without a LoRA it is the digest alone.
    """

    files: str
    loras: tuple[FileVersion, ...] = ()

    def __str__(self) -> str:
        return _WITH_LORA.join([self.files, *map(str, self.loras)])

    @classmethod
    def parse(cls, version: str) -> "ModelVersion":
        """What :meth:`__str__` wrote."""
        files, *loras = version.split(_WITH_LORA)
        return cls(files, tuple(map(FileVersion.parse, loras)))


def observe_models_of_request(
    request: ResolvedRequest, versions: Mapping[str, str], loras: Sequence["RequestedLora"]
) -> Iterator[dg.AssetObservation]:
    """What the clip of ``request`` is made with: one observation per asset of ``versions``."""
    yield from observe_models_of(request.id, request.model, versions, _versions_of(loras))


def observe_models_of(
    request_id: str, variant: str, versions: Mapping[str, str], loras: tuple[FileVersion, ...]
) -> Iterator[dg.AssetObservation]:
    """What ``request_id`` is made with: one observation per asset of ``versions``, which are those of ``variant``."""
    for asset, version in versions.items():
        used = loras if asset == _MODEL_OF_CLIP else ()
        shown: dict[str, dg.MetadataValue] = {"model": dg.MetadataValue.text(variant)}
        if used:
            shown["lora"] = dg.MetadataValue.text(", ".join(lora.path for lora in used))
        yield observation(asset, request_id, str(ModelVersion(version, used)), shown)


def observe_replaced_lora(
    context: dg.AssetExecutionContext,
    request: ResolvedRequest,
    versions: Mapping[str, str] | None,
    loras: Sequence["RequestedLora"],
) -> None:
    """What the clip is made with, where a LoRA is another one than when the request was validated.

    Args:
        context: of the step that makes the clip.
        request: the request of the clip.
        versions: of the verified model files; None where they never were verified.
        loras: those of the request.
    """
    if not loras or versions is None:
        return
    files, now = versions[_MODEL_OF_CLIP], _versions_of(loras)
    seen = observed_versions(context.instance, _MODEL_OF_CLIP, [request.id]).get(request.id)
    if seen != str(ModelVersion(files, now)):
        observe_inputs(context, observe_models_of(request.id, request.model, {_MODEL_OF_CLIP: files}, now))


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
        loras = ModelVersion.parse(before).loras if before else ()
        yield from observe_models_of(request_id, variant, changed, loras)


def _versions_of(loras: Sequence["RequestedLora"]) -> tuple[FileVersion, ...]:
    return tuple(FileVersion(lora.sha256, lora.name) for lora in loras)
