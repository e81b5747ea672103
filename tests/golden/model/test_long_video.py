"""Clips of several chunks through the engine: each chunk from the saved frames of its predecessor, and the whole chain.

Bounds: latents as the index asks for. Frames more strictly than there: one level in 0.01 % of a chunk's values when fed
with saved frames; chained, in 0.05 % of the clip's values and 0.1 % of a chunk's (run twice, the reference differs from
itself in 0.06 % of a chunk: uint8 conversion truncates).
"""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from golden_folders import golden_cases
from golden_model_files import (
    GoldenCase,
    index_files,
    index_name,
    largest_difference,
    tensors,
    transformer_of_weights,
    vae_of_weights,
)

from libs.one_to_all import engine as engine_module
from libs.one_to_all.engine import AnimationEngine
from libs.one_to_all.events import AnimationInputs, ChunkStarted, FramesReady
from libs.one_to_all.options import SamplingOptions
from libs.one_to_all.sampling.chunk_plan import ChunkLengths, plan_chunks
from libs.one_to_all.sampling.denoise import draw_noise
from libs.one_to_all.sampling.schedule import build_scheduler
from libs.one_to_all.sampling.vae import encode_latents, signed_from_uint8
from libs.one_to_all.weights.loading import LoadedNetworks

TIGHT_SHARE, CHAINED_CLIP_SHARE, CHAINED_CHUNK_SHARE = 1e-4, 5e-4, 1e-3
TIGHT_LATENTS, CHAINED_LATENTS = 2e-4, 1e-2
DERIVED_LATENTS = 1e-5


def _long_videos(folder) -> Iterator[tuple[str, GoldenCase]]:
    for path, index in index_files(folder, "split_plan", "chunks", "transformer_weights", "MAIN_CHUNK"):
        yield index_name(folder, path), GoldenCase(path, index)


def _chunks(folder) -> Iterator[tuple[str, GoldenCase]]:
    for name, case in _long_videos(folder):
        for number in range(len(case.index["chunks"])):
            yield f"{name}-{number}", GoldenCase(case.path, case.index, number)


class _SavedEmbeddings:
    """Stands where the prompt encoder does: the files hold embeddings, not prompts."""

    def __init__(self, embeddings: dict[str, torch.Tensor]) -> None:
        self._embeddings = embeddings

    def encode(self, prompt: str, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        return self._embeddings[prompt].to(device, dtype)


class _SavedChunks:
    """A chunk store with the reference's own chunks in it, up to one that the engine must make."""

    def __init__(self, saved: dict[str, torch.Tensor], count: int) -> None:
        self._saved, self._count = saved, count
        self.made: dict[int, np.ndarray] = {}

    def load(self, index: int) -> np.ndarray | None:
        return self._saved[f"out/chunk{index}/frames_u8"].numpy() if index < self._count else None

    def save(self, index: int, frames: np.ndarray) -> None:
        self.made[index] = frames


def _seed(index: dict[str, Any]) -> int:
    """The seed of every chunk, which the index tells in words: "..., manual_seed(42), for every chunk"."""
    found = re.search(r"manual_seed\((\d+)\)", index.get("generator", ""))
    return int(found.group(1)) if found else 42


class _Run:
    """One run of the engine over a golden clip; records decoded latents per made chunk."""

    def __init__(self, case: GoldenCase, monkeypatch: pytest.MonkeyPatch, saved_chunks: int) -> None:
        index = case.index
        self.saved = tensors(case.file(index["file"]))
        self.latents: list[torch.Tensor] = []
        decode = engine_module.decode_latents

        def recording_decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
            self.latents.append(latents)
            return decode(vae, latents)

        monkeypatch.setattr(engine_module, "decode_latents", recording_decode)
        embeddings = {
            "prompt": self.saved["in/prompt_embeds"],
            "negative": self.saved["in/negative_prompt_embeds"],
        }
        networks = LoadedNetworks(
            transformer_of_weights(case.path.parent, index["transformer_weights"]),
            vae_of_weights(case.path.parent, index["vae_weights"].split()[0]),
            _SavedEmbeddings(embeddings),
            build_scheduler(),
        )
        self.engine = AnimationEngine(networks, torch.device("cpu"), torch.float32)
        self.store = _SavedChunks(self.saved, saved_chunks)
        self.options = SamplingOptions(
            prompt="prompt",
            negative_prompt="negative",
            num_inference_steps=index["num_inference_steps"],
            image_guidance_scale=index["image_guidance_scale"],
            pose_guidance_scale=index["pose_guidance_scale"],
            seed=_seed(index),
            conditioning_scale=index["controlnet_conditioning_scale"],
            intermediate_pass="without_pose" if index["case1"] else "without_image",
            chunk_lengths=ChunkLengths(
                index["MAIN_CHUNK"], index["OVERLAP_FRAMES"], tuple(index["FINAL_CHUNK_CANDIDATES"])
            ),
        )
        mask = self.saved["in/mask_resized"][0, 0, 0] * 255
        poses = self.saved["in/pose_tensor_u8"][0].permute(1, 2, 3, 0).numpy()
        self.inputs = AnimationInputs(
            image=self.saved["in/image_resized_u8"].numpy(),
            mask=mask.round().to(torch.uint8).numpy(),
            reference_pose=self.saved["in/src_pose_u8"][0, :, 0].permute(1, 2, 0).numpy(),
            frame_count=index["total_frames"],
            poses=lambda start, stop: poses[start:stop],
        )
        assert float((mask - mask.round()).abs().max()) < 1e-4  # the saved mask is a uint8 picture over 255

    def animate(self) -> Iterator[Any]:
        return self.engine.animate(self.inputs, self.options, self.store)


def _compare(frames: np.ndarray, expected: torch.Tensor, share: float) -> float:
    """Frames may differ by one level in ``share`` of their values; returns the share that does."""
    difference = np.abs(frames.astype(np.int16) - expected.numpy().astype(np.int16))
    different = float((difference > 0).mean())
    assert frames.shape == tuple(expected.shape)
    assert difference.max() <= 1
    assert different <= share
    return different


@pytest.mark.parametrize("case", golden_cases("long video, each chunk", _chunks))
def test_each_chunk_from_saved_frames(case, record_case, monkeypatch):
    number = case.case
    run = _Run(case, monkeypatch, saved_chunks=number)
    for _event in run.animate():
        if number in run.store.made:
            break
    error = largest_difference(run.latents[0], run.saved[f"out/chunk{number}/final_latents"])
    record_case("long video, each chunk", error)
    assert error <= TIGHT_LATENTS
    _compare(run.store.made[number], run.saved[f"out/chunk{number}/frames_u8"], TIGHT_SHARE)

    noise = run.saved[f"out/chunk{number}/noise"]
    assert torch.equal(draw_noise(tuple(noise.shape), run.options.seed, torch.device("cpu"), torch.float32), noise)
    saved_previous = run.saved.get(f"out/chunk{number}/prev_frames_u8")
    if saved_previous is not None:  # what the engine continued from is what the reference continued from
        pixels = signed_from_uint8(saved_previous.numpy(), torch.device("cpu"), torch.float32)
        latents = encode_latents(run.engine.networks.vae, pixels)
        assert largest_difference(latents, run.saved[f"out/chunk{number}/prev_latents"]) <= DERIVED_LATENTS
        plan = plan_chunks(case.index["total_frames"], run.options.chunk_lengths)
        offset = plan[number].start - plan[number - 1].start
        previous = run.saved[f"out/chunk{number - 1}/frames_u8"][offset : offset + len(saved_previous)]
        assert torch.equal(previous, saved_previous)


@pytest.mark.parametrize("case", golden_cases("long video, chained", _long_videos))
def test_chained_chunks(case, record_case, monkeypatch):
    run = _Run(case, monkeypatch, saved_chunks=0)
    events = list(run.animate())
    ready = [event for event in events if isinstance(event, FramesReady)]
    started = [[event.start, event.end] for event in events if isinstance(event, ChunkStarted)]
    assert started == case.index["split_plan"]
    assert [event.start for event in ready] == [sum(len(one.frames) for one in ready[:n]) for n in range(len(ready))]

    saved_latents = [run.saved[f"out/chunk{number}/final_latents"] for number in range(len(started))]
    errors = [largest_difference(*pair) for pair in zip(run.latents, saved_latents, strict=True)]
    record_case("long video, chained", max(errors))
    assert max(errors) <= CHAINED_LATENTS
    for number in range(len(started)):
        _compare(run.store.made[number], run.saved[f"out/chunk{number}/frames_u8"], CHAINED_CHUNK_SHARE)
    _compare(np.concatenate([event.frames for event in ready]), run.saved["out/frames_u8"], CHAINED_CLIP_SHARE)
