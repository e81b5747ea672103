"""What all assets of a kind share: owners, groups, GPU tags. Applied once, so that no asset decides for itself.

Tags are fixed when definitions load, so what they depend on is read then.
"""

from collections.abc import Mapping
from typing import Any

from libs.settings.kubernetes import KubernetesSettings, load_kubernetes_settings
from libs.stages.animation_files import POSE_TRACKS_CODE

MODELS_GROUP = "models"
WHEELS_GROUP = "wheels"
"""Apart from the models: an asset job has partitions of one kind."""

ANIMATIONS_GROUP = "animations"
OWNERS = ["team:animation"]

MODEL_ASSETS = (
    "migrated_pretrained_models",
    "one_to_all_checkpoint",
    "pose_models",
    "slimmed_wan_resources",
    "model_verification",
)
"""Everything that is made for a model variant, upstream assets first."""

WHEEL_ASSETS = ("wheel_networks",)
"""Everything that is made for a wheel of networks."""

GPU_POOL = "gpu"
"""Runs that hold a slot of this pool use a GPU; limit: ``dagster instance concurrency set gpu N``."""

GPU_QUEUE = "gpu"
"""The Celery queue that GPU workers listen to."""


def gpu_op_tags(settings: KubernetesSettings) -> dict[str, Any]:
    """The tags of an op that needs a GPU: its Celery queue, and the GPUs a pod of its own asks for.

    Kubernetes wants request and limit of such a resource to be equal.
    """
    gpus = {settings.k8s_gpu_resource: str(settings.k8s_gpu_count)}
    return {
        "dagster-celery/queue": GPU_QUEUE,
        "dagster-k8s/config": {"container_config": {"resources": {"requests": gpus, "limits": dict(gpus)}}},
    }


GPU_OP_TAGS: Mapping[str, Any] = gpu_op_tags(load_kubernetes_settings())
"""For ``op_tags=`` of assets that need a GPU, whichever executor or launcher a deployment uses."""

CONTENT_TAG = "one_to_all/content"
"""Tag of runs launched for one content of a request (``libs.requests.lifecycle.accepted``); runs started by hand have
none."""

BATCH_TAG = "one_to_all/batch"
"""Tag of runs that a nightly batch launched, e.g. ``nightly-2026-11-30``; all of them can be stopped at once."""

DROPPED_TAG = "one_to_all/dropped_for"
"""Tag of runs that were not canceled by a person: the id of the run that makes the same clip, or ``restored`` where it
is stored."""

MAKES_TAG = "one_to_all/makes"
"""Tag of runs started by hand, once they know which content of the request they make."""

# Raise a stage's number when its code changes what it computes from the same inputs; unchanged stages stay fresh.
CODE_VERSIONS: Mapping[str, str] = {
    "model_files": "1",
    "model_verification": "1",
    "animation_request": "1",
    "pose_tracks": POSE_TRACKS_CODE,
    "pose_conditioning": "2",
    "animation": "1",
    "animation_review": "2",
}
