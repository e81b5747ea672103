"""What the GPU assets ask Celery and Kubernetes for."""

import json
import os
import subprocess
import sys

import pytest

from libs.errors import SettingsError
from libs.settings import REPOSITORY_ROOT
from libs.settings.kubernetes import KubernetesSettings, load_kubernetes_settings
from orchestration.policies import GPU_POOL, GPU_QUEUE, gpu_op_tags

SHOW_TAGS = """
import json
from orchestration.definitions import build_defs
job = build_defs().resolve_job_def("animate")
print(json.dumps({node.name: {**node.tags, "pool": node.definition.pool} for node in job.nodes}))
"""


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("K8S_GPU_RESOURCE", "K8S_GPU_COUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(KubernetesSettings.model_config, "env_file", None)


def resources_of(tags: dict) -> dict:
    config = tags["dagster-k8s/config"]
    return (json.loads(config) if isinstance(config, str) else config)["container_config"]["resources"]


def test_one_gpu_is_the_default() -> None:
    tags = gpu_op_tags(load_kubernetes_settings())
    assert tags["dagster-celery/queue"] == GPU_QUEUE
    assert resources_of(tags) == {"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "1"}}


def test_settings_name_another_resource_and_count() -> None:
    environment = {**os.environ, "K8S_GPU_RESOURCE": "nvidia.com/mig-3g.40gb", "K8S_GPU_COUNT": "2"}
    shown = subprocess.run(
        [sys.executable, "-c", SHOW_TAGS],
        cwd=REPOSITORY_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    tags = json.loads(shown.stdout.splitlines()[-1])
    asked_for = {"nvidia.com/mig-3g.40gb": "2"}
    in_pool = {asset for asset, of_asset in tags.items() if of_asset["pool"] == GPU_POOL}
    assert in_pool >= {"animation", "pose_tracks"}
    assert {asset for asset, of_asset in tags.items() if "dagster-k8s/config" in of_asset} == in_pool
    for asset in in_pool:
        assert resources_of(tags[asset]) == {"requests": asked_for, "limits": asked_for}


@pytest.mark.parametrize(
    ("name", "value"),
    [("K8S_GPU_COUNT", "0"), ("K8S_GPU_COUNT", "half"), ("K8S_GPU_RESOURCE", "gpu"), ("K8S_GPU_RESOURCE", "a b/c")],
)
def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: "):
        load_kubernetes_settings()
