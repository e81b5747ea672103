"""How far clips of approximate modes are from the exact clip, and what they save: PSNR on latents and on frames.

    python benchmarks/approximation.py                      two tiny networks on the CPU, a few minutes
    python benchmarks/approximation.py --request dance-1    a stored request: its poses and options, its model's weights
    python benchmarks/approximation.py --request dance-1 --lora distilled --lora-steps 4

Of the tiny networks one is the sandbox's, whose weights are constructed, and one is random. Neither was trained, so
their figures only show that the modes work; the second and third command measure what a person would see. PSNR of
frames has a peak of 255, that of latents the range of the exact latents. What does not belong here: pass or fail.
"""

import argparse
import math
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from libs.media.pictures.image import read_image
from libs.media.video.reader import read_frames
from libs.model_repo.layout import layout_of
from libs.model_repo.variants import NetworkConfig
from libs.one_to_all.engine import AnimationEngine
from libs.one_to_all.engine_cache import ENGINES, EngineSpec
from libs.one_to_all.events import AnimationInputs, FramesReady
from libs.one_to_all.memory import memory_options
from libs.one_to_all.network import OneToAllTransformer3DModel
from libs.one_to_all.options import SamplingOptions
from libs.one_to_all.sampling.approximation import EXACT, QUALITIES, Approximation
from libs.one_to_all.sampling.chunk_plan import DEFAULT_CHUNK_LENGTHS
from libs.one_to_all.sampling.denoise import DenoisingStep
from libs.one_to_all.weights.lora_file import LoraFile
from libs.pose.conditioning import PoseConditioning
from libs.pose.draw import DrawingStyle, draw_pose
from libs.pose.fitting.framing import resize_crop, resize_crop_drawing
from libs.pose.networks.estimator import OnnxPoseEstimator
from libs.pose.record import record_of
from libs.requests.documents.animation_request import ResolvedRequest
from libs.sandbox.media import write_puppet_clip, write_puppet_picture
from libs.sandbox.repository import write_sandbox_repository
from libs.settings import Settings, get_settings
from libs.stages.clip.sampling import sampling_options
from libs.storage.backends.factory import store_from_settings

_SETTINGS = {
    "block cache 0.03": Approximation(block_cache_threshold=0.03),
    "block cache 0.08 (fast)": QUALITIES["fast"],
    "block cache 0.15": Approximation(block_cache_threshold=0.15),
    "block cache 0.3": Approximation(block_cache_threshold=0.3),
    "guided 0.75": Approximation(guided_share=0.75),
    "guided 0.5": Approximation(guided_share=0.5),
    "guided 0.25": Approximation(guided_share=0.25),
    "block cache 0.15, guided 0.5 (draft)": QUALITIES["draft"],
}
_RANDOM = NetworkConfig(
    num_attention_heads=2,
    num_layers=8,
    ffn_dim=512,
    num_control_layers=2,
    num_reference_layers=3,
    text_dim=64,
)
_SIDE = 96


@dataclass(frozen=True)
class Clip:
    """What one setting made: latents of all chunks, frames uint8 [n, H, W, 3], computed main blocks, seconds."""

    latents: torch.Tensor
    frames: np.ndarray
    blocks: int
    seconds: float
    processor_seconds: float


def main() -> None:
    """Measure and print, as rows of a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--request", help="a stored request, whose poses were made")
    parser.add_argument("--frames", type=int, help="only so many frames")
    parser.add_argument("--steps", type=int, default=30, help="of the tiny networks")
    parser.add_argument("--lora", help="compare with this file in the model's loras/, too")
    parser.add_argument("--lora-steps", type=int, default=4)
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.0f}")
    if arguments.request:
        _stored_request(arguments.request, arguments.frames, arguments.lora, arguments.lora_steps)
    else:
        _tiny_networks(arguments.frames or 17, arguments.steps)


def _stored_request(request_id: str, frames: int | None, lora: str | None, lora_steps: int) -> None:
    settings = get_settings()
    store = store_from_settings(settings)
    stored = store.fetch("animation_request", request_id).path("request.json")
    request = ResolvedRequest.model_validate_json(stored.read_text())
    conditioning = PoseConditioning.load(store.fetch("pose_conditioning", request_id).folder)
    inputs = _inputs(conditioning, min(frames or len(conditioning), len(conditioning)))
    layout = layout_of(request.model, settings)
    memory = memory_options(settings)
    engine, _ = ENGINES.get_or_load(EngineSpec(layout, settings.one_to_all_device, memory=memory))
    options = sampling_options(request.model_copy(update={"quality": "exact"}), DEFAULT_CHUNK_LENGTHS)
    exact = _compare(f"{request.model}, {request_id}", engine, inputs, options)
    if lora:
        spec = EngineSpec(layout, settings.one_to_all_device, lora=LoraFile(layout.lora(lora)), memory=memory)
        engine, _ = ENGINES.get_or_load(spec)
        few = replace(options, num_inference_steps=lora_steps, image_guidance_scale=1.0, pose_guidance_scale=1.0)
        _print_row(f"LoRA {lora}, {lora_steps} steps, no guidance", _make(engine, inputs, few), exact)


def _tiny_networks(frame_count: int, steps: int) -> None:
    with tempfile.TemporaryDirectory(prefix="approximation-benchmark-") as folder:
        settings = Settings(models_dir=Path(folder, "models"), data_dir=Path(folder, "data"), _env_file=None)
        layout = layout_of("sandbox", settings)
        write_sandbox_repository(layout)
        estimator = OnnxPoseEstimator(layout.detector, layout.pose_estimator)
        inputs = _inputs(_puppet(Path(folder), estimator, frame_count), frame_count)
        engine = AnimationEngine.load(layout, "cpu")
    options = SamplingOptions("a puppet dancing", "blurred", steps, 2.0, 1.5)
    _compare("sandbox network (constructed)", engine, inputs, options)
    torch.manual_seed(0)
    random = OneToAllTransformer3DModel(**vars(_RANDOM)).eval().requires_grad_(False)
    engine.networks = replace(engine.networks, transformer=random)
    _compare("random network", engine, inputs, options)


def _puppet(folder: Path, estimator: OnnxPoseEstimator, frame_count: int) -> PoseConditioning:
    write_puppet_picture(folder / "puppet.png")
    write_puppet_clip(folder / "dance.mp4", frame_count=frame_count, audio=False)
    picture, size = read_image(folder / "puppet.png"), (_SIDE, _SIDE)
    frames = [resize_crop(frame, *picture.shape[:2]) for frame in read_frames(folder / "dance.mp4")]
    reference, driver = estimator.estimate([picture]), estimator.estimate(frames)
    style, drawn_at = DrawingStyle(), (picture.shape[0], picture.shape[1])
    pose = resize_crop_drawing(draw_pose(record_of(reference), 0, *drawn_at, style), *size)
    mask = np.zeros(size, np.uint8)
    return PoseConditioning(resize_crop(picture, *size), pose, mask, record_of(driver), drawn_at, style)


def _inputs(conditioning: PoseConditioning, frame_count: int) -> AnimationInputs:
    return AnimationInputs(
        image=conditioning.image,
        mask=conditioning.mask,
        reference_pose=conditioning.reference_pose,
        frame_count=frame_count,
        poses=conditioning.draw,
    )


def _compare(title: str, engine: AnimationEngine, inputs: AnimationInputs, options: SamplingOptions) -> Clip:
    print(f"\n{title}: {inputs.frame_count} frames of {inputs.width}x{inputs.height}, ", end="")
    print(f"{options.num_inference_steps} steps, guidance {options.image_guidance_scale}/{options.pose_guidance_scale}")
    print("| setting | PSNR latents, dB | PSNR frames, dB | main blocks computed | time (of processors), of exact |")
    print("|---|---|---|---|---|", flush=True)
    _make(engine, inputs, replace(options, num_inference_steps=1))  # warm up
    exact = _make(engine, inputs, options)
    again = _make(engine, inputs, replace(options, approximation=Approximation(block_cache_threshold=0.0)))
    _print_row("block cache 0", again, exact)
    for name, approximation in _SETTINGS.items():
        _print_row(name, _make(engine, inputs, replace(options, approximation=approximation)), exact)
    assert options.approximation == EXACT
    return exact


def _make(engine: AnimationEngine, inputs: AnimationInputs, options: SamplingOptions) -> Clip:
    latents, frames, blocks = [], [], 0
    denoise = engine.denoise

    def keeping(*arguments: object, **more: object) -> Iterator[DenoisingStep]:
        for step in denoise(*arguments, **more):
            if step.step == step.step_count:
                latents.append(step.latents.float().cpu())
            yield step

    def count(*_: object) -> None:
        nonlocal blocks
        blocks += 1

    transformer = engine.networks.transformer
    hooks = [block.get_submodule("ffn").register_forward_hook(count) for block in transformer.blocks]
    engine.denoise = keeping
    started, worked = time.perf_counter(), time.process_time()
    try:
        for event in engine.animate(inputs, options):
            if isinstance(event, FramesReady):
                frames.append(event.frames)
    finally:
        engine.denoise = denoise
        for hook in hooks:
            hook.remove()
    seconds, processor_seconds = time.perf_counter() - started, time.process_time() - worked
    whole = torch.cat([one.flatten() for one in latents])
    return Clip(whole, np.concatenate(frames), blocks, seconds, processor_seconds)


def _print_row(name: str, clip: Clip, exact: Clip) -> None:
    span = float(exact.latents.max() - exact.latents.min())
    latents = _psnr(float((clip.latents - exact.latents).square().mean()), span)
    difference = clip.frames.astype(np.float32) - exact.frames
    frames = _psnr(float(np.square(difference).mean()), 255.0)
    work = f"{clip.seconds / exact.seconds:.2f} ({clip.processor_seconds / exact.processor_seconds:.2f})"
    print(f"| {name} | {latents} | {frames} | {clip.blocks / exact.blocks:.0%} | {work} |", flush=True)


def _psnr(mean_square: float, peak: float) -> str:
    return "equal" if mean_square == 0 else f"{10 * math.log10(peak**2 / mean_square):.1f}"


if __name__ == "__main__":
    main()
