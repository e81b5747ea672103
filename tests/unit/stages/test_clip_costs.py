"""What the parts of a chunk take: calculated for real models, remembered of the newest clip like this one."""

from pathlib import Path

import pytest

from libs.errors import StorageUnavailableError
from libs.model_repo.variants import get_variant
from libs.one_to_all.memory.cost import TokenGrid
from libs.one_to_all.memory.options import ClipSize
from libs.one_to_all.sampling.guidance import plan_guidance
from libs.requests.documents.animation_request import AnimationRequest
from libs.stages.clip.clip_costs import (
    COSTS_PREFIX,
    SANDBOX_COSTS,
    CostHistory,
    RelativeCosts,
    assumed_costs,
    calculated_costs,
)
from libs.storage.backends.folder import FolderObjectStore

COSTS = RelativeCosts(decoding=1.25, first=0.5, later=0.125)


def test_the_next_clip_of_this_model_device_and_size_knows(tmp_path: Path) -> None:
    objects = FolderObjectStore(tmp_path)
    history = CostHistory(objects, "14b", "NVIDIA H200 / 141 GB", 480, 832)
    assert history.load() is None
    history.save(COSTS)
    assert CostHistory(objects, "14b", "NVIDIA H200 / 141 GB", 480, 832).load() == COSTS
    for other in (("1.3b_1", "NVIDIA H200 / 141 GB", 480), ("14b", "cpu", 480), ("14b", "NVIDIA H200 / 141 GB", 576)):
        assert CostHistory(objects, other[0], other[1], other[2], 832).load() is None
    (key,) = (info.key for info in objects.list(f"{COSTS_PREFIX}/"))
    assert key == "clip_costs/14b/NVIDIA-H200-141-GB-480x832.json"


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"[]",
        b"3",
        b'{"decoding": 1}',
        b'{"decoding": "x", "first": 1, "later": 1}',
        b'{"decoding": -1, "first": 1, "later": 1}',
        b'{"decoding": NaN, "first": 1, "later": 1}',
        b"\xff",
    ],
)
def test_what_cannot_be_read_counts_as_nothing(tmp_path: Path, damaged: bytes) -> None:
    objects = FolderObjectStore(tmp_path)
    objects.put_bytes("clip_costs/sandbox/cpu-96x128.json", damaged)
    assert CostHistory(objects, "sandbox", "cpu", 96, 128).load() is None


def test_a_store_that_does_not_answer_stops_no_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise StorageUnavailableError("no answer")

    monkeypatch.setattr(FolderObjectStore, "get_bytes", refuse)
    assert CostHistory(FolderObjectStore(tmp_path), "sandbox", "cpu", 96, 128).load() is None


def test_a_large_network_and_a_long_chunk_have_the_smaller_parts_beside_a_step() -> None:
    guidance = plan_guidance(2.0, 1.5)

    def costs(model: str, frames: int) -> RelativeCosts:
        return calculated_costs(get_variant(model).network, TokenGrid.of(832, 480, frames), guidance)

    large, small = costs("14b", 81), costs("1.3b_1", 81)
    assert large.decoding < small.decoding / 4
    assert large.decoding == pytest.approx(0.15, rel=0.1), "as docs/benchmarks.md has it"
    assert small.decoding == pytest.approx(0.86, rel=0.1)
    assert costs("14b", 33).decoding > large.decoding
    assert large.later < large.decoding


def test_the_sandbox_was_measured_and_others_are_calculated() -> None:
    size = ClipSize(130, 97, 82)
    request = AnimationRequest(id="a", reference="r.png", driver="d.mp4")
    assert assumed_costs(request.resolve("sandbox"), size) == SANDBOX_COSTS
    assert assumed_costs(request.resolve("sandbox-fp8"), size) == SANDBOX_COSTS
    assert 0 < assumed_costs(request.resolve("14b-fp8"), size).decoding < 3
