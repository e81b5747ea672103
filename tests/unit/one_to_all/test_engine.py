"""The engine on real, tiny networks: frame counts, resuming bit for bit, determinism, options."""

import numpy as np
import pytest
import torch

from libs.errors import DeviceError, DeviceOutOfMemoryError, InputError
from libs.one_to_all import engine as engine_module
from libs.one_to_all.engine import AnimationEngine
from libs.one_to_all.events import ChunkStarted, FramesReady, StepFinished
from libs.one_to_all.memory.choice import PlanRequest, choose_plan
from libs.one_to_all.memory.options import MemoryOptions
from libs.one_to_all.memory.plan import DeviceBudget, MemoryBudget
from libs.one_to_all.options import SamplingOptions
from libs.one_to_all.sampling.chunk_plan import ChunkLengths
from libs.one_to_all.weights.loading import LoadedNetworks
from libs.storage.backends.folder import FolderObjectStore
from libs.storage.chunks import StoredChunks

SHORT_CHUNKS = ChunkLengths(main=13, overlap=5, final=(9, 13))


def _options(**changes) -> SamplingOptions:
    fields = {
        "prompt": "a dancer",
        "negative_prompt": "blurred",
        "num_inference_steps": 2,
        "image_guidance_scale": 2.0,
        "pose_guidance_scale": 1.5,
        "chunk_lengths": SHORT_CHUNKS,
    }
    return SamplingOptions(**{**fields, **changes})


def _store(folder):
    return StoredChunks(FolderObjectStore(folder), "chunks")


def _frames(events) -> np.ndarray:
    return np.concatenate([event.frames for event in events if isinstance(event, FramesReady)])


@pytest.mark.parametrize("frame_count", [1, 2, 5, 6, 12, 13, 14, 25])
def test_a_clip_has_exactly_the_drivers_frames(engine, make_inputs, frame_count):
    options = _options(num_inference_steps=1, image_guidance_scale=1.0)
    frames = _frames(engine.animate(make_inputs(frame_count), options))
    assert frames.shape == (frame_count, 32, 32, 3)
    assert frames.dtype == np.uint8


@pytest.mark.slow
@pytest.mark.parametrize("frame_count", range(1, 81))
def test_short_clips(engine, make_inputs, frame_count):
    options = _options(num_inference_steps=1, image_guidance_scale=1.0, chunk_lengths=ChunkLengths())
    frames = _frames(engine.animate(make_inputs(frame_count, 16, 16), options))
    assert frames.shape == (frame_count, 16, 16, 3)


def test_events_tell_the_whole_story(engine, make_inputs):
    events = list(engine.animate(make_inputs(14), _options()))
    assert [type(event) for event in events] == 2 * [ChunkStarted, StepFinished, StepFinished, FramesReady]
    assert [event for event in events if isinstance(event, ChunkStarted)] == [
        ChunkStarted(0, 2, 0, 13, False),
        ChunkStarted(1, 2, 5, 14, False),
    ]
    assert [event.start for event in events if isinstance(event, FramesReady)] == [0, 5]
    steps = [(event.chunk_index, event.step, event.step_count) for event in events if isinstance(event, StepFinished)]
    assert steps == [(0, 1, 2), (0, 2, 2), (1, 1, 2), (1, 2, 2)]


def test_every_option_and_picture_matters(engine, make_inputs):
    inputs = make_inputs(5, 16, 16)
    known = [_frames(engine.animate(inputs, _options()))]
    for changes in (
        {"prompt": "a cat"},
        {"negative_prompt": "sharp"},
        {"num_inference_steps": 3},
        {"image_guidance_scale": 2.5},
        {"pose_guidance_scale": 3.0},
        {"seed": 43},
        {"conditioning_scale": 0.5},
        {"intermediate_pass": "without_pose"},
    ):
        frames = _frames(engine.animate(inputs, _options(**changes)))
        assert not any(np.array_equal(frames, other) for other in known), changes
        known.append(frames)
    for field in ("image", "mask", "reference_pose"):
        other = make_inputs(5, 16, 16)
        getattr(other, field)[:] = 255 - getattr(other, field)
        assert not np.array_equal(_frames(engine.animate(other, _options())), known[0]), field


@pytest.mark.parametrize("stop_at", [(0, 1), (1, 1), (2, 2)])
def test_a_killed_run_resumes_bit_for_bit(engine, make_inputs, tmp_path, stop_at):
    inputs, options = make_inputs(30), _options()
    whole = _frames(engine.animate(inputs, options))

    run = engine.animate(inputs, options, _store(tmp_path))
    for event in run:
        if isinstance(event, StepFinished) and (event.chunk_index, event.step) == stop_at:
            run.close()
            break
    events = list(engine.animate(inputs, options, _store(tmp_path)))
    assert [event.resumed for event in events if isinstance(event, ChunkStarted)] == [
        index < stop_at[0] for index in range(4)
    ]
    assert np.array_equal(_frames(events), whole)


def test_a_finished_run_needs_no_network(engine, make_inputs, tmp_path):
    inputs, options = make_inputs(14), _options()
    whole = _frames(engine.animate(inputs, options, _store(tmp_path)))
    nothing = AnimationEngine(LoadedNetworks(None, None, None, None), torch.device("cpu"), torch.float32)
    assert np.array_equal(_frames(nothing.animate(inputs, options, _store(tmp_path))), whole)


def test_poses_are_asked_for_chunk_by_chunk(engine, make_inputs):
    inputs, asked = make_inputs(30), []
    drawn = inputs.poses
    object.__setattr__(inputs, "poses", lambda start, stop: asked.append((start, stop)) or drawn(start, stop))
    list(engine.animate(inputs, _options(num_inference_steps=1)))
    assert asked == [(0, 13), (8, 21), (16, 29), (21, 30)]


def test_bfloat16_is_near_float32(repository, engine, make_inputs):
    inputs, options = make_inputs(14), _options(image_guidance_scale=1.5, pose_guidance_scale=0.0)
    half = AnimationEngine.load(repository, "cpu", torch.bfloat16)
    assert half.networks.transformer.dtype == torch.bfloat16
    frames = _frames(half.animate(inputs, options)).astype(int)
    expected = _frames(engine.animate(inputs, options)).astype(int)
    assert frames.shape == expected.shape
    difference = np.abs(frames - expected)
    assert 0 < difference.mean() < 4  # of 255 levels: rounding shows, and no more than rounding


@pytest.mark.parametrize("step", [1, 3])
def test_a_clip_of_nan_is_an_error_and_not_black(engine, make_inputs, monkeypatch, step):
    """As a LoRA of absurd strength makes it, or a card at fault. Nothing of the chunk is stored."""
    make_steps, made = engine.denoise, []

    def spoil(*arguments, **options):
        for state in make_steps(*arguments, **options):
            made.append(state.step)
            if state.step >= step:
                state.latents[0, 0, -1, 0, 0] = float("nan")
            yield state

    monkeypatch.setattr(engine, "denoise", spoil)
    with pytest.raises(DeviceError, match=rf"chunk 0 is not finite .* after step {step}, and would be black"):
        list(engine.animate(make_inputs(5), _options(num_inference_steps=3)))
    assert made[-1] == step


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_out_of_memory_says_what_to_change(engine, make_inputs, monkeypatch, error):
    def too_large(*_):
        raise error

    monkeypatch.setattr(engine_module, "decode_latents", too_large)
    with pytest.raises(DeviceOutOfMemoryError, match=r"13 frames of 32x32 pixels.*shorter chunks"):
        list(engine.animate(make_inputs(14), _options(num_inference_steps=1)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps=0"),
        ({"image_guidance_scale": float("nan")}, "image_guidance_scale=nan"),
        ({"pose_guidance_scale": -1}, "pose_guidance_scale=-1"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_impossible_options_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        _options(**changes)


def test_dropping_the_text_encoder_changes_no_bit(repository, engine, make_inputs):
    inputs = make_inputs(9)
    request = PlanRequest(repository, torch.float32, MemoryOptions(keyword="drop-text-encoder"))
    plan = choose_plan(request, MemoryBudget((DeviceBudget("cpu", 0),)))
    dropping = AnimationEngine.load(repository, "cpu", plan=plan)
    prompts = dropping.networks.prompt_encoder
    for prompt in ("a dancer", "another dancer"):  # for the second it is loaded again
        options = _options(num_inference_steps=1, prompt=prompt)
        np.testing.assert_array_equal(
            _frames(dropping.animate(inputs, options)), _frames(engine.animate(inputs, options))
        )
        assert prompts.text_encoder is None
    assert engine.networks.prompt_encoder.text_encoder is not None
