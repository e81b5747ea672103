"""The jobs a person or a schedule launches; one partition per run."""

import dagster as dg

from orchestration.partitions import ANIMATION_REQUESTS, MODEL_VARIANTS
from orchestration.policies import ANIMATIONS_GROUP, MODELS_GROUP

PREPARE_MODELS = dg.define_asset_job(
    "prepare_models",
    selection=dg.AssetSelection.groups(MODELS_GROUP),
    partitions_def=MODEL_VARIANTS,
    description="Provide and verify the model files of one variant.",
)

ANIMATE = dg.define_asset_job(
    "animate",
    selection=dg.AssetSelection.groups(ANIMATIONS_GROUP),
    partitions_def=ANIMATION_REQUESTS,
    description="From a request in the inbox to a reviewed clip.",
)

JOBS = [PREPARE_MODELS, ANIMATE]
