"""As a person in the UI would: add a partition, launch a materialization, wait, fetch the stored clip. By GraphQL."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from libs.media.video.probe import probe_video
from libs.requests.lifecycle.archive import REQUEST_ASSETS
from libs.sandbox.media import write_puppet_clip, write_puppet_picture
from tests.integration.orchestration.running_ui import running_ui
from tests.integration.orchestration.ui_tour import find_chromium
from tests.waiting import HANG_SECONDS

FINISHED_WITHIN = 900

ADD_PARTITION = """
mutation ($key: String!, $repository: RepositorySelector!) {
  addDynamicPartition(partitionsDefName: "animation_requests", partitionKey: $key, repositorySelector: $repository) {
    __typename
  }
}
"""
LAUNCH = """
mutation ($parameters: ExecutionParams!) {
  launchRun(executionParams: $parameters) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
STATUS = """
query ($run: ID!) { runOrError(runId: $run) { __typename ... on Run { status } } }
"""
STALE = """
query ($assets: [AssetKeyInput!], $partition: String!) {
  assetNodes(assetKeys: $assets) { assetKey { path } staleStatus(partition: $partition) }
}
"""
LATEST = """
query ($asset: AssetKeyInput!, $partition: String!) {
  assetNodeOrError(assetKey: $asset) {
    ... on AssetNode {
      assetMaterializations(limit: 1, partitions: [$partition]) {
        metadataEntries {
          label
          ... on TableMetadataEntry { table { records } }
        }
      }
    }
  }
}
"""


class Webserver:
    """The running webserver, asked by GraphQL."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = requests.post(
            f"{self.address}/graphql", json={"query": query, "variables": variables}, timeout=HANG_SECONDS
        ).json()
        assert "errors" not in answer, answer["errors"]
        return dict(answer["data"])


@pytest.fixture
def webserver(world: Any, tmp_path: Path) -> Iterator[Webserver]:
    """``make ui`` on the test's own state, on a free port."""
    with running_ui(tmp_path / "webserver.log") as address:
        yield Webserver(address)


@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is not None, reason="test_browser makes a clip by way of the webserver")
def test_a_clip_is_made_by_way_of_the_webserver(world: Any, webserver: Webserver, tmp_path: Path) -> None:
    write_puppet_picture(tmp_path / "puppet.png")
    write_puppet_clip(tmp_path / "dance.mp4", frame_count=5)
    for name in ("puppet.png", "dance.mp4"):
        world.put(name, tmp_path / name)
    request = {"id": "by-hand", "reference": "puppet.png", "driver": "dance.mp4", "model": "sandbox", "steps": 1}
    world.put("by-hand.json", json.dumps(request).encode())
    repository = {"repositoryLocationName": "one_to_all", "repositoryName": "__repository__"}

    def run(job: str, partition: str, *assets: str) -> str:
        selection = {"assetSelection": [{"path": [name]} for name in assets]} if assets else {}
        launched = webserver.ask(
            LAUNCH,
            parameters={
                "selector": {**repository, "pipelineName": job, **selection},
                "executionMetadata": {"tags": [{"key": "dagster/partition", "value": partition}]},
            },
        )["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        deadline = time.monotonic() + FINISHED_WITHIN
        while time.monotonic() < deadline:
            status = str(webserver.ask(STATUS, run=launched["run"]["runId"])["runOrError"]["status"])
            if status in {"SUCCESS", "FAILURE", "CANCELED"}:
                return status
            time.sleep(1)
        return "still running"

    added = webserver.ask(ADD_PARTITION, key="by-hand", repository=repository)["addDynamicPartition"]
    assert added["__typename"] == "AddDynamicPartitionSuccess", added
    assert run("prepare_models", "sandbox") == "SUCCESS"
    assert run("animate", "by-hand") == "SUCCESS"

    latest = webserver.ask(LATEST, asset={"path": ["animation"]}, partition="by-hand")["assetNodeOrError"]
    (materialization,) = latest["assetMaterializations"]
    tables = {entry["label"]: entry for entry in materialization["metadataEntries"]}
    records = [json.loads(record) for record in tables["stored files"]["table"]["records"]]
    (clip,) = [record for record in records if record["file"] == "clip.mp4"]
    stored = Path(clip["stored at"].removeprefix("file://"))
    assert stored.is_file()
    assert probe_video(stored).frame_count == 5

    def stale() -> set[str]:
        """What the UI shows as out of date or missing."""
        keys = [{"path": [name]} for name in REQUEST_ASSETS]
        nodes = webserver.ask(STALE, assets=keys, partition="by-hand")["assetNodes"]
        assert len(nodes) == len(REQUEST_ASSETS)
        return {node["assetKey"]["path"][-1] for node in nodes if node["staleStatus"] != "FRESH"}

    assert stale() == set()
    configuration = world.models_dir / "One-to-All-sandbox" / "configuration.json"
    content = configuration.read_bytes()
    configuration.unlink()
    configuration.write_bytes(content + b"\n")
    world.accept_model_files()
    assert run("prepare_models", "sandbox", "model_verification") == "SUCCESS"
    assert stale() == {"animation"}, "its review is of this clip, until another one is made"
