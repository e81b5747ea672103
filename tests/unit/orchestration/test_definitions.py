"""What Dagster is told: groups, owners, versions, GPU tags, and no secret anywhere."""

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap

from libs.requests.lifecycle.archive import REQUEST_ASSETS
from orchestration.definitions import build_defs
from orchestration.policies import ANIMATIONS_GROUP, CODE_VERSIONS, GPU_POOL, GPU_QUEUE

GPU_ASSETS = {"pose_tracks", "animation", "animation_review"}
NEVER_TALK_TO_THE_STORE = {"model_verification_third_party_is_untouched"}


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_defs()


def test_every_asset_has_group_owner_kind_and_description(definitions: dg.Definitions) -> None:
    for spec in definitions.resolve_all_asset_specs():
        assert spec.group_name in {"models", "wheels", "animations"}, spec.key
        assert spec.owners, spec.key
        assert spec.kinds, spec.key
        assert spec.description, spec.key


def test_every_job_sensor_schedule_and_check_is_described(definitions: dg.Definitions) -> None:
    repository = definitions.get_repository_def()
    jobs = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]
    for definition in [*jobs, *repository.sensor_defs, *repository.schedule_defs]:
        assert definition.description, definition.name
    for key in repository.asset_graph.asset_check_keys:
        assert repository.asset_graph.get(key).description, key


def test_every_materializable_asset_has_a_code_version(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for key in graph.materializable_asset_keys:
        assert graph.get(key).code_version in CODE_VERSIONS.values(), key


def test_gpu_assets_carry_pool_queue_and_kubernetes_request(definitions: dg.Definitions) -> None:
    job = definitions.resolve_job_def("animate")
    pools = {
        node.name: node.definition.pool for node in job.graph.nodes if isinstance(node.definition, dg.OpDefinition)
    }
    assert {name for name, pool in pools.items() if pool == GPU_POOL} == GPU_ASSETS
    for node in job.graph.nodes:
        if node.name in GPU_ASSETS:
            tags = node.definition.tags
            assert tags["dagster-celery/queue"] == GPU_QUEUE
            assert "nvidia.com/gpu" in tags["dagster-k8s/config"]


def test_no_secret_reaches_the_ui(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"S3_ACCESS_KEY": "the-access-key", "S3_SECRET_KEY": "the-secret-key", "MODEL_HUB_TOKEN": "the-token"}
    for name, value in {**secrets, "S3_ENDPOINT": "http://127.0.0.1:9", "S3_BUCKET_NAME": "clips"}.items():
        monkeypatch.setenv(name, value)
    repository = build_defs().get_repository_def()
    told = dg.serialize_value(RepositorySnap.from_def(repository))
    assert "animation_request" in told
    assert not [value for value in secrets.values() if value in told]


def test_archived_requests_keep_the_manifests_of_every_asset(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    of_requests = {key for key in graph.materializable_asset_keys if graph.get(key).group_name == ANIMATIONS_GROUP}
    assert {key.to_user_string() for key in of_requests} == set(REQUEST_ASSETS)


def test_steps_that_use_the_store_are_retried_with_growing_pauses(definitions: dg.Definitions) -> None:
    """Assets store and load; checks load, too."""
    for job in ("animate", "prepare_models"):
        nodes = definitions.resolve_job_def(job).graph.nodes
        ops = {node.name: node.definition for node in nodes if isinstance(node.definition, dg.OpDefinition)}
        for name, definition in ops.items():
            if name not in NEVER_TALK_TO_THE_STORE:
                policy = definition.retry_policy
                assert policy is not None, name
                assert (policy.backoff, policy.max_retries) == (dg.Backoff.EXPONENTIAL, 3), name
