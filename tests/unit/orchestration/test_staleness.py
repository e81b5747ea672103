"""Why a clip is stale, in plain words, and never where Dagster's own answer says that it is fresh."""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pytest

from libs.requests.lifecycle.states import CLIP_ASSET
from orchestration.definitions import build_defs
from orchestration.models.models_in_use import ModelVersion
from orchestration.partitions import ANIMATION_REQUESTS, remember_variant_of_request
from orchestration.staleness import CODE_OF_ASSETS, INPUTS, stale_clips, unfinished_assets
from orchestration.storage.observed import DATA_VERSION_TAG, FileVersion, observation

A, B = "a" * 64, "b" * 64
LORA = FileVersion(A, "One-to-All-sandbox/loras/look.safetensors")
FIRST = {
    "request_document": A,
    "requested_poses": A,
    "reference_picture": str(FileVersion(A, "puppet.png")),
    "driving_video": str(FileVersion(A, "dance.mp4")),
    "pose_networks": A,
    "animation_model": str(ModelVersion(A, (LORA,))),
}


class Lineage:
    """Requests of one instance, and the events of their inputs and assets."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self._newest: dict[tuple[str, str], int] = {}

    def observe(self, request_id: str, asset: str, version: str) -> None:
        self._report(request_id, observation(asset, request_id, version))

    def make(
        self, request_id: str, asset: str, version: str = A, code: str | None = None, beside: str | None = None
    ) -> None:
        """Make an asset; ``beside`` is the request whose events are the newest then, in the place of its own."""
        seen = beside or request_id
        pointers = {f"dagster/input_event_pointer/{name}": self._newest[seen, name] for name in INPUTS[asset]}
        versions = {f"dagster/input_data_version/{name}": A for name in INPUTS[asset]}
        tags = {DATA_VERSION_TAG: version, "dagster/code_version": code or CODE_OF_ASSETS[asset], **versions}
        tags |= {"dagster/data_version_is_user_provided": "true", **{tag: str(id_) for tag, id_ in pointers.items()}}
        self._report(request_id, dg.AssetMaterialization(asset, partition=request_id, tags=tags))

    def _report(self, request_id: str, event: Any) -> None:
        self.instance.report_runless_asset_event(event)
        kind = dg.DagsterEventType.ASSET_OBSERVATION
        if isinstance(event, dg.AssetMaterialization):
            kind = dg.DagsterEventType.ASSET_MATERIALIZATION
        ids = self.instance.event_log_storage.get_latest_storage_id_by_partition(event.asset_key, kind, {request_id})
        self._newest[request_id, event.asset_key.to_user_string()] = ids[request_id]

    def make_clip(self, request_id: str) -> None:
        self.instance.add_dynamic_partitions(str(ANIMATION_REQUESTS.name), [request_id])
        remember_variant_of_request(self.instance, request_id, "sandbox")
        for asset, version in FIRST.items():
            self.observe(request_id, asset, version)
        for asset in INPUTS:
            self.make(request_id, asset)

    def dagster_says_stale(self, request_id: str) -> bool:
        keys = [dg.AssetKey(name) for name in INPUTS]
        return dg.AssetKey(CLIP_ASSET) in unfinished_assets(build_defs(), self.instance, keys, request_id)


@pytest.fixture
def lineage() -> Iterator[Lineage]:
    with dg.DagsterInstance.ephemeral() as instance:
        made = Lineage(instance)
        for request_id in ("one", "two"):
            made.make_clip(request_id)
        yield made


CHANGES: list[tuple[Callable[[Lineage], None], list[str]]] = [
    (lambda it: it.observe("one", "reference_picture", f"{B}  puppet.png"), ["picture puppet.png replaced"]),
    (lambda it: it.observe("one", "driving_video", f"{B}  人 舞.mp4"), ["video 人 舞.mp4 replaced"]),
    (lambda it: it.observe("one", "pose_networks", B), ["pose networks of model sandbox changed"]),
    (lambda it: it.observe("one", "animation_model", str(ModelVersion(B, (LORA,)))), ["model sandbox changed"]),
    (
        lambda it: it.observe("one", "animation_model", str(ModelVersion(A, (FileVersion(B, LORA.path),)))),
        ["LoRA look changed"],
    ),
    (lambda it: it.observe("one", "requested_poses", B), ["the request was changed since"]),
    (lambda it: it.make("one", "pose_tracks", B, code="0"), ["pose tracks made by an earlier version of the software"]),
    (lambda it: it.make("one", "pose_conditioning", B), ["pose conditioning made again since"]),
    (lambda it: it.make("one", "pose_conditioning", A), []),
    (lambda it: it.observe("one", "driving_video", FIRST["driving_video"]), []),
]


@pytest.mark.parametrize(("change", "reasons"), CHANGES)
def test_what_was_replaced_is_named_and_dagster_agrees(
    lineage: Lineage, change: Callable[[Lineage], None], reasons: list[str]
) -> None:
    assert stale_clips(lineage.instance, ["one", "two", "never made"]) == {}
    change(lineage)
    assert stale_clips(lineage.instance, ["one", "two"]) == ({"one": reasons} if reasons else {})
    assert lineage.dagster_says_stale("one") == bool(reasons)


def test_requests_made_side_by_side_are_fresh_and_go_on_to_know_what_was_replaced(lineage: Lineage) -> None:
    """Dagster notes the newest event of an input, whichever request that is of."""
    lineage.make("two", "request_media", B)
    for asset in ("pose_tracks", "pose_conditioning", CLIP_ASSET):
        lineage.make("one", asset, beside="two")
    assert stale_clips(lineage.instance, ["one"]) == {}
    assert not lineage.dagster_says_stale("one")
    lineage.make("one", "request_media", A)
    assert stale_clips(lineage.instance, ["one"]) == {}, "made again, with the same result"
    lineage.make("one", "request_media", B)
    assert stale_clips(lineage.instance, ["one"]) == {"one": ["request media made again since"]}


def test_only_the_cause_of_staleness_is_reported(lineage: Lineage) -> None:
    lineage.observe("one", "reference_picture", f"{B}  puppet.png")
    lineage.make("one", "pose_conditioning", B)
    assert stale_clips(lineage.instance, ["one"]) == {"one": ["picture puppet.png replaced"]}
    for asset in list(INPUTS)[:-1]:
        lineage.make("one", asset, B)
    assert set(stale_clips(lineage.instance, ["one"])) == {"one"}, "the clip is of the older poses"
    lineage.make("one", CLIP_ASSET, B)
    assert stale_clips(lineage.instance, ["one"]) == {}


def test_the_inputs_are_those_of_the_asset_graph() -> None:
    graph = build_defs().resolve_asset_graph()
    for asset, inputs in INPUTS.items():
        node = graph.get(dg.AssetKey(asset))
        assert {key.to_user_string() for key in node.parent_keys} == set(inputs)
        assert node.code_version == CODE_OF_ASSETS[asset]
