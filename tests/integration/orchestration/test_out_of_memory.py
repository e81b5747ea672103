"""A GPU whose memory does not suffice: smaller chunks, once. Played is the GPU only: the allocation that fails."""

import gc
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from libs.model_repo.layout import layout_of
from libs.one_to_all import engine as engine_module
from libs.one_to_all.engine import AnimationEngine
from libs.one_to_all.engine_cache import ENGINES, EngineSpec
from libs.settings import load_settings
from libs.stages.review.quality import ClipQuality
from tests.integration.orchestration.small_requests import (
    clip_of,
    metadata_of,
    submit_small,
    summary_of,
    write_small_media,
)

SIZE = {"height": 32, "width": 32}
FRAMES = 90
"""Default chunks: 81 frames (21 latent ones), then a last one. Smaller chunks: 33 frames (9 latent ones) at most."""


@dataclass
class SmallGPU:
    """Holds chunks of at most ``latent_frames``; remembers what happened, and the tensors of chunks that failed."""

    latent_frames: int
    refuse_from: int = 0
    """Number of the allocation from which on it refuses; those before fit, whatever their size."""
    models: int = 100
    """Beside more models than these it holds no chunk at all."""
    allocations: list[int] = field(default_factory=list)
    held: list["weakref.ref[torch.Tensor]"] = field(default_factory=list)
    held_when_released: list[int] = field(default_factory=list)

    @property
    def refused(self) -> list[int]:
        return [frames for frames in self.allocations if frames > self.latent_frames]


@pytest.fixture
def small_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallGPU]:
    gpu = SmallGPU(latent_frames=9)
    draw_noise, release_memory = engine_module.draw_noise, AnimationEngine.release_memory

    def draw_or_refuse(shape: tuple[int, ...], *arguments: Any) -> torch.Tensor:
        noise = draw_noise(shape, *arguments)
        gpu.allocations.append(shape[2])
        crowded = len(ENGINES.engines) > gpu.models
        if crowded or (shape[2] > gpu.latent_frames and len(gpu.allocations) > gpu.refuse_from):
            gpu.held.append(weakref.ref(noise))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return noise

    def release(engine: AnimationEngine) -> None:
        release_memory(engine)
        gpu.held_when_released.append(sum(tensor() is not None for tensor in gpu.held))

    monkeypatch.setattr(engine_module, "draw_noise", draw_or_refuse)
    monkeypatch.setattr(AnimationEngine, "release_memory", release)
    yield gpu
    ENGINES.clear()
    gc.collect()


def failures(result: Any) -> list[Any]:
    return [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]


@pytest.mark.slow
def test_chunks_that_do_not_fit_are_made_smaller_once_and_not_mixed(
    world: Any, tmp_path: Path, small_gpu: SmallGPU
) -> None:
    media = write_small_media(tmp_path / "media", FRAMES, audio=False)
    for request_id in ("too-large", "second-chunk"):
        submit_small(world, media, request_id, size=SIZE)

    assert world.animate("too-large").success

    assert small_gpu.refused == [21], "one attempt with the default chunks"
    assert small_gpu.held_when_released == [0], "memory is given back once, and nothing of the failed attempt is held"
    for record in (summary_of(world, "too-large"), metadata_of(world, "animation", "too-large")):
        assert (record["chunk_length"], record["chunk_overlap"]) == (33, 5)
        assert "a chunk of 81 frames of 32x32 pixels does not fit" in record["out_of_memory"]
        assert record["frame_count"] == FRAMES
        assert record["chunks_resumed"] == 0
    assert len(clip_of(world, "too-large")) == FRAMES
    starts = summary_of(world, "too-large")["chunk_starts"]
    quality = ClipQuality.load(world.artifact("animation_review", "too-large").path("quality.json"))
    assert len(starts) == len(quality.colour_drift_per_chunk) == len(quality.seam_per_border) + 1 > 2

    # The first large chunk fits and is stored, the second does not: the smaller ones begin with the first frame.
    before = len(small_gpu.allocations)
    small_gpu.refuse_from = before + 1
    assert world.animate("second-chunk", review=False).success
    assert small_gpu.allocations[before] == 21
    assert len(small_gpu.refused) == 3
    assert summary_of(world, "second-chunk")["chunks_resumed"] == 0
    np.testing.assert_array_equal(clip_of(world, "second-chunk"), clip_of(world, "too-large"))
    assert not list(world.objects.list("chunks/")), "the chunks of both plans go when the clip is stored"

    submit_small(world, write_small_media(tmp_path / "short", 5, audio=False), "fits", size=SIZE)
    assert world.animate("fits", review=False).success
    assert summary_of(world, "fits")["out_of_memory"] is None
    assert summary_of(world, "fits")["chunk_length"] == 81
    assert small_gpu.held_when_released == [0, 0]


@pytest.mark.slow
def test_other_models_that_stay_loaded_make_room_before_the_second_attempt(
    world: Any, tmp_path: Path, small_gpu: SmallGPU
) -> None:
    """Their memory is what a clip of one short chunk lacks: smaller chunks would not help it."""
    layout = layout_of("sandbox", load_settings())
    idle = replace(layout, variant=replace(layout.variant, name="idle"))
    ENGINES.get_or_load(EngineSpec(idle, "cpu"))
    small_gpu.models = 1
    submit_small(world, write_small_media(tmp_path / "media", 5), "crowded")

    assert world.animate("crowded", review=False).success

    assert small_gpu.allocations == [2, 2], "one attempt beside the other model, one without it"
    assert [key.name for key in ENGINES.engines] == ["sandbox"]
    assert "does not fit" in summary_of(world, "crowded")["out_of_memory"]
    assert summary_of(world, "crowded")["chunk_length"] == 81, "the chunks are those of an undisturbed run"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("frames", "attempts", "message"),
    [(41, 2, "in chunks of 81 frames, nor of 33"), (5, 1, "a chunk of 5 frames of 32x32 pixels")],
)
def test_what_fits_in_no_way_fails_for_good(
    world: Any, tmp_path: Path, small_gpu: SmallGPU, frames: int, attempts: int, message: str
) -> None:
    small_gpu.latent_frames = 0
    submit_small(world, write_small_media(tmp_path / "media", frames, audio=False), "hopeless", size=SIZE)

    result = world.animate("hopeless", raise_on_error=False)

    assert not result.success
    assert len(small_gpu.allocations) == attempts
    assert not [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
    (failure,) = [event for event in failures(result) if event.step_key == "animation"]
    explained = failure.step_failure_data.user_failure_data.description
    assert message in explained
    assert "ask for a smaller size or a smaller model variant" in explained
    assert world.store.manifest("animation", "hopeless") is None
    scratch = world.data_dir / "one_to_all_animation_runtime" / "scratch"
    assert not list(scratch.iterdir())
