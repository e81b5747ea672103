"""The engine's parts against what the machine can do, and against the plain way of computing them, in one run.

    python benchmarks/engine.py                               a scaled-down network on the CPU: ratios
    python benchmarks/engine.py --device cuda                 the 14B network's size, random weights, 480 x 832
    python benchmarks/engine.py --device cuda --height 576 --width 1024 --compile

First the machine's own ceilings are measured (a matrix product, a copy), then every part: seconds, share of the
matrix-product ceiling that the counted FLOPs (``libs.one_to_all.cost``) reached, peak memory. Weights are random: speed
does not depend on their values. Device events on CUDA, after warm-up; wall time on a CPU, where parts that are compared
are run in turn. What does not belong here: pass or fail (tests decide that), start-up (``start_up.py``).
"""

import argparse
import gc
import logging
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch
from diffusers import AutoencoderKLWan
from plain.network import plain_velocity
from safetensors.torch import save_file
from transformers import UMT5Config, UMT5EncoderModel

from libs.model_repo.variants import NetworkConfig, get_variant
from libs.one_to_all.checkpoint import assign_checkpoint
from libs.one_to_all.cost import TokenGrid, pass_bytes, pass_cost, step_flops, weight_bytes
from libs.one_to_all.device import default_dtype, resolve_device
from libs.one_to_all.forward_memo import ForwardMemo
from libs.one_to_all.guidance import Guidance, GuidancePass, plan_guidance
from libs.one_to_all.memory_plan import sampling_bytes
from libs.one_to_all.sampler import ChunkConditions, ClipConditions, _Poses, _run_pass
from libs.one_to_all.transformer import OneToAllTransformer3DModel
from libs.one_to_all.vae import decode_latents, encode_latents

_BACKENDS = ("native", "_native_flash", "_native_cudnn", "_native_efficient", "_native_math", "flash", "_flash_3")
"""Exact ones only. ``_native_math`` holds all scores in memory and is left out where they would not fit."""
_SMALL = {"num_attention_heads": 4, "num_layers": 4, "ffn_dim": 1024, "num_reference_layers": 3, "text_dim": 256}
_MIB = 2**20
_LARGEST_SCORES = 2**31


class Clock:
    """Times calls on one device; the median of some rounds after one that does not count."""

    def __init__(self, device: torch.device, rounds: int) -> None:
        self.device, self.rounds = device, rounds

    def seconds(self, call: Callable[[], object]) -> float:
        """Of one call."""
        if self.device.type != "cuda":
            started = time.perf_counter()
            call()
            return time.perf_counter() - started
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1000

    def alternating(self, *calls: Callable[[], object]) -> list[list[float]]:
        """For each call its times, taken in turn."""
        for call in calls:
            call()
        times: list[list[float]] = [[] for _ in calls]
        for _ in range(self.rounds):
            for call, taken in zip(calls, times, strict=True):
                taken.append(self.seconds(call))
        return times

    def median(self, call: Callable[[], object]) -> float:
        """Of the rounds."""
        return median(self.alternating(call)[0])

    def peak(self, call: Callable[[], object]) -> int:
        """Bytes that a call adds at its peak."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call()
            torch.cuda.synchronize()
            return torch.cuda.max_memory_allocated() - before
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        before = _resident("VmRSS")
        call()
        return max(0, _resident("VmHWM") - before)


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


@dataclass(frozen=True)
class Subject:
    """What is measured, and with which inputs."""

    network: NetworkConfig
    grid: TokenGrid
    guidance: Guidance
    transformer: OneToAllTransformer3DModel
    clip: ClipConditions
    chunk: ChunkConditions
    latents: torch.Tensor
    timestep: torch.Tensor

    def run_pass(self, one: GuidancePass, memo: ForwardMemo) -> torch.Tensor:
        """One pass as the sampler makes it."""
        poses = _Poses(self.clip.reference_pose, self.chunk.poses)
        return _run_pass(self.transformer, one, self.clip, poses, self.latents, self.timestep, False, memo)

    def step(self, memo: ForwardMemo) -> torch.Tensor:
        """All passes of a step, with what clip and chunk share already in ``memo``."""
        memo.start_step()
        return self.guidance.combine({one.name: self.run_pass(one, memo) for one in self.guidance.passes})

    def plain_step(self) -> torch.Tensor:
        """The same, everything computed in each pass."""
        return plain_velocity(self.transformer, self.guidance, self.clip, self.chunk, self.latents, self.timestep)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--variant", default="14b", help="whose size is taken on CUDA")
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--layers", type=int, help="fewer main blocks than the variant has")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="also with the repeated blocks compiled (minutes)")
    parser.add_argument("--skip-load", action="store_true", help="do not write and load a checkpoint of this size")
    arguments = parser.parse_args()
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    device = resolve_device(arguments.device)
    small = device.type != "cuda"
    height, width = arguments.height or (128 if small else 480), arguments.width or (192 if small else 832)
    frames = arguments.frames or (17 if small else 81)
    network = get_variant(arguments.variant).network
    network = replace(network, **_SMALL) if small else network
    network = replace(network, num_layers=arguments.layers or network.num_layers)
    clock = Clock(device, arguments.rounds)
    with torch.inference_mode():
        subject = _subject(network, TokenGrid.of(height, width, frames), device)
        _print_head(subject, device, (height, width, frames))
        ceiling = _ceilings(clock, subject.latents.dtype)
        if not arguments.skip_load:
            _measure_load(clock, subject)
        _measure_prompt(clock, small, subject)
        _measure_vae(clock, small, subject)
        _measure_steps(clock, subject, ceiling)
        _measure_backends(clock, subject, ceiling)
        if arguments.compile:
            _measure_compiled(clock, subject, ceiling)


def _subject(network: NetworkConfig, grid: TokenGrid, device: torch.device) -> Subject:
    dtype = default_dtype(device)
    with torch.device("meta"):
        transformer = OneToAllTransformer3DModel(**asdict(network)).to(dtype)
    transformer = transformer.to_empty(device=device).eval().requires_grad_(False)
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in transformer.named_parameters():
        if parameter.dim() == 1:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        else:
            parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=dtype)

    height, width = 16 * grid.height, 16 * grid.width
    latent = (height // 8, width // 8)
    clip = ClipConditions(
        draw(1, 512, network.text_dim),
        draw(1, 512, network.text_dim),
        draw(1, 32, 1, *latent),
        draw(1, 32, 1, *latent),
        draw(1, 3, 1, height, width),
    )
    chunk = ChunkConditions(draw(1, 3, grid.frame_count, height, width))
    timestep = torch.tensor([700.0], device=device)
    latents = draw(1, 16, grid.frames - 1, *latent)
    return Subject(network, grid, plan_guidance(2.0, 1.5), transformer, clip, chunk, latents, timestep)


def _print_head(subject: Subject, device: torch.device, size: tuple[int, int, int]) -> None:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    network, (height, width, frames) = subject.network, size
    print(f"{datetime.now(UTC):%Y-%m-%d}, {name}, torch {torch.__version__}, {platform.machine()}")
    print(
        f"{network.num_attention_heads} heads, {network.num_layers} blocks, {weight_bytes(network) / 1e9:.2f} GB in "
        f"bfloat16; {frames} frames of {width}x{height}: {subject.grid.tokens} tokens; {subject.latents.dtype}"
    )
    cost = pass_cost(network, subject.grid)
    ours, plain = step_flops(cost, subject.guidance), len(subject.guidance.passes) * cost.total
    print(
        f"counted: a pass {cost.total / 1e12:.3f} TFLOP and at least {pass_bytes(network, subject.grid) / 1e9:.2f} GB "
        f"of traffic; a step {ours / 1e12:.3f} TFLOP, computed plainly {plain / 1e12:.3f}"
    )


def _ceilings(clock: Clock, dtype: torch.dtype) -> float:
    side, count = (8192, 2**29) if clock.device.type == "cuda" else (1024, 2**24)
    a, b = (torch.randn(side, side, device=clock.device).to(dtype) for _ in range(2))
    target = torch.empty_like(a)
    flops = 2 * side**3 / min(clock.alternating(lambda: torch.mm(a, b, out=target))[0])
    source = torch.zeros(count, dtype=torch.float32, device=clock.device)
    copy = torch.empty_like(source)
    traffic = 2 * source.nbytes / min(clock.alternating(lambda: copy.copy_(source))[0])
    print(f"ceilings: matrix product {flops / 1e12:.3f} TFLOP/s, copy {traffic / 1e9:.1f} GB/s (read and written)\n")
    print(f"{'':<34}{'seconds':>10}{'of ceiling':>12}{'peak MiB':>10}")
    return flops


def _row(label: str, seconds: float, share: float | None = None, peak: int | None = None, note: str = "") -> None:
    of_ceiling = "" if share is None else f"{share:.0%}"
    memory = "" if peak is None else f"{peak / _MIB:.0f}"
    print(f"{label:<34}{seconds:>10.4f}{of_ceiling:>12}{memory:>10}  {note}".rstrip(), flush=True)


def _measure_load(clock: Clock, subject: Subject) -> None:
    with tempfile.TemporaryDirectory(prefix="engine-benchmark-") as folder:
        state = {name: value.to("cpu", torch.bfloat16) for name, value in subject.transformer.state_dict().items()}
        size = sum(value.nbytes for value in state.values())
        save_file(state, Path(folder, "model.safetensors"))
        del state

        def load() -> torch.nn.Module:
            with torch.device("meta"):
                model = OneToAllTransformer3DModel(**asdict(subject.network))
            assign_checkpoint(model, Path(folder), clock.device, subject.latents.dtype, "")
            return model

        seconds = clock.median(load)
        _row("load the transformer (cached file)", seconds, note=f"{size / seconds / 1e6:.0f} MB/s of bfloat16 weights")


def _measure_prompt(clock: Clock, small: bool, subject: Subject) -> None:
    sizes = {"d_model": 256, "d_ff": 512, "num_layers": 2, "num_heads": 4, "vocab_size": 1000}
    full = {"d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "vocab_size": 256384}
    config = UMT5Config(**(sizes if small else full), d_kv=64, feed_forward_proj="gated-gelu")
    with torch.device("meta"):
        encoder = UMT5EncoderModel(config).to(subject.latents.dtype)
    encoder = encoder.to_empty(device=clock.device).eval()
    for parameter in encoder.parameters():
        parameter.normal_(0, 0.02)
    tokens = torch.arange(512, device=clock.device)[None]
    mask = torch.ones_like(tokens)
    _row("prompt", clock.median(lambda: encoder(tokens, mask)), peak=clock.peak(lambda: encoder(tokens, mask)))


def _measure_vae(clock: Clock, small: bool, subject: Subject) -> None:
    vae = (
        AutoencoderKLWan(base_dim=8 if small else 96, num_res_blocks=1 if small else 2)
        .to(clock.device, subject.latents.dtype)
        .eval()
    )
    picture = subject.clip.reference_pose
    overlap = subject.chunk.poses[:, :, :5].contiguous()
    for label, call in (
        ("VAE encode, a picture", lambda: encode_latents(vae, picture)),
        ("VAE encode, 5 frames", lambda: encode_latents(vae, overlap)),
        (f"VAE decode, {subject.grid.frame_count} frames", lambda: decode_latents(vae, subject.latents)),
    ):
        _row(label, clock.median(call), peak=clock.peak(call))


def _measure_steps(clock: Clock, subject: Subject, ceiling: float) -> None:
    cost = pass_cost(subject.network, subject.grid)
    memo = ForwardMemo()
    subject.step(memo)  # what is computed once per clip and chunk
    for one in subject.guidance.passes:
        flops = cost.every_pass + (cost.control_branch if one.conditioning_scale else 0)
        seconds = clock.median(lambda: subject.run_pass(one, memo))  # noqa: B023 - called at once
        _row(f"pass, {one.name}", seconds, flops / seconds / ceiling)
    plain, ours = clock.alternating(subject.plain_step, lambda: subject.step(memo))
    passes = len(subject.guidance.passes)
    plain_peak, our_peak = clock.peak(subject.plain_step), clock.peak(lambda: subject.step(memo))
    _row("step, plain", median(plain), passes * cost.total / median(plain) / ceiling, plain_peak)
    _row("step, ours", median(ours), step_flops(cost, subject.guidance) / median(ours) / ceiling, our_peak)
    ratios = [one / other for one, other in zip(plain, ours, strict=True)]
    if clock.device.type == "cpu":
        work = [_processor_seconds(call) for call in (subject.plain_step, lambda: subject.step(memo))]
        print(f"{'plain / ours, processor time':<34}{work[0] / work[1]:>10.2f}  hardly disturbed by other processes")
    difference, size = subject.plain_step() - subject.step(memo), subject.step(memo).abs().max()
    print(f"{'plain / ours':<34}{median(ratios):>10.2f}  from {min(ratios):.2f} to {max(ratios):.2f}")
    print(f"{'largest difference':<34}{(difference.abs().max() / size).item():>10.1e}  of the largest velocity")
    if clock.device.type == "cuda":
        print(f"{'estimate of the memory plan':<34}{sampling_bytes(subject.network, subject.grid) / _MIB:>10.0f} MiB")


def _processor_seconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def _measure_backends(clock: Clock, subject: Subject, ceiling: float) -> None:
    cost, one = pass_cost(subject.network, subject.grid), subject.guidance.passes[0]
    scores = subject.grid.tokens**2 * subject.network.num_attention_heads
    memo = ForwardMemo()
    for name in _BACKENDS:
        label = f"pass, attention {name}"
        if name == "_native_math" and scores * subject.latents.element_size() > _LARGEST_SCORES:
            print(f"{label:<34}{'-':>10}  its scores would not fit")
            continue
        try:
            subject.transformer.set_attention_backend(name)
            seconds = clock.median(lambda: subject.run_pass(one, memo))
        except Exception as error:
            print(f"{label:<34}{'-':>10}  {' '.join(str(error).split())[:80]}")
        else:
            _row(label, seconds, (cost.every_pass + cost.control_branch) / seconds / ceiling)
    subject.transformer.set_attention_backend("native")


def _measure_compiled(clock: Clock, subject: Subject, ceiling: float) -> None:
    cost, memo = pass_cost(subject.network, subject.grid), ForwardMemo()
    eager = clock.alternating(lambda: subject.step(memo))[0]
    expected = subject.step(memo)
    started = time.perf_counter()
    subject.transformer.compile_repeated_blocks(fullgraph=False)
    subject.step(memo)
    _row("compiling the blocks", time.perf_counter() - started)
    compiled = clock.alternating(lambda: subject.step(memo))[0]
    _row("step, compiled", median(compiled), step_flops(cost, subject.guidance) / median(compiled) / ceiling)
    difference = ((subject.step(memo) - expected).abs().max() / expected.abs().max()).item()
    print(f"{'ours / compiled':<34}{median(eager) / median(compiled):>10.2f}  largest difference {difference:.1e}")


if __name__ == "__main__":
    main()
