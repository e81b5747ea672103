"""The engine's parts against what the machine can do, and against the plain way of computing them, in one run.

    python benchmarks/engine.py                               a scaled-down network on the CPU: ratios, in minutes
    python benchmarks/engine.py --device cuda                 the 14B network's size, random weights, 480 x 832
    python benchmarks/engine.py --device cuda --height 576 --width 1024 --rounds 5

First the machine's own ceilings are measured (a matrix product, a copy), then every part: seconds, share of the
matrix-product ceiling that the counted FLOPs (``libs.one_to_all.memory.cost``) reached, peak memory. Then one denoising
step in every variant, in turn: plain, ours, each attention back-end that works, blocks compiled, FP8 weights, FP8
compute. Device events on CUDA, after warm-up; on a CPU wall time, and processor time for the ratios. What does not
belong here: pass or fail (tests decide that), start-up (``start_up.py``), approximations (``approximation.py``).
"""

import argparse
import logging
import platform
import tempfile
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from measuring.beside import prompt_call, random_vae
from measuring.ceilings import copied_bytes, product_flops
from measuring.clock import Clock
from measuring.left_out import measure_left_out
from measuring.subject import Subject, make_subject
from measuring.variants import exact_variants, fp8_variants
from safetensors.torch import save_file

from libs.model_repo.variants import get_variant
from libs.one_to_all.device import default_dtype, resolve_device
from libs.one_to_all.memory.cost import TokenGrid, pass_bytes, pass_cost, step_flops, weight_bytes
from libs.one_to_all.memory.estimates import sampling_bytes
from libs.one_to_all.network import ActivationCache, OneToAllTransformer3DModel
from libs.one_to_all.sampling.vae import decode_latents, encode_latents, uint8_from_signed
from libs.one_to_all.weights.checkpoint import assign_checkpoint

_SMALL = {"num_attention_heads": 4, "num_layers": 4, "ffn_dim": 1024, "num_reference_layers": 3, "text_dim": 256}
_MIB = 2**20
_COLUMNS = f"{'':<34}{'seconds':>10}{'of ceiling':>12}{'peak MiB':>10}"


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
    parser.add_argument("--threads", type=int, default=1, help="of the CPU; one gives processor times that compare")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="compiled blocks, too; by default on CUDA only"
    )
    parser.add_argument("--no-load", action="store_true", help="do not write and load a checkpoint of this size")
    parser.add_argument("--left-out", action="store_true", help="also what was tried and is not part of the engine")
    arguments = parser.parse_args()
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    torch.set_num_threads(arguments.threads)
    device = resolve_device(arguments.device)
    small = device.type != "cuda"
    compiled = not small if arguments.compile is None else arguments.compile
    height, width = arguments.height or (96 if small else 480), arguments.width or (128 if small else 832)
    frames = arguments.frames or (17 if small else 81)
    network = get_variant(arguments.variant).network
    network = replace(network, **_SMALL) if small else network
    network = replace(network, num_layers=arguments.layers or network.num_layers)
    clock = Clock(device, arguments.rounds)
    with torch.no_grad():
        subject = make_subject(network, TokenGrid.of(height, width, frames), device, default_dtype(device))
        _print_head(subject, device, (height, width, frames))
        ceiling = _ceilings(clock, subject.latents.dtype)
        if not arguments.no_load:
            _measure_load(clock, subject)
        _measure_prompt(clock, small, subject)
        _measure_vae(clock, small, subject)
        _measure_passes(clock, subject, ceiling)
        _measure_variants(clock, subject, ceiling, compiled=compiled)
        if arguments.left_out:
            measure_left_out(clock, subject)


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
    flops, traffic = product_flops(clock, dtype), copied_bytes(clock)
    print(f"ceilings: matrix product {flops / 1e12:.3f} TFLOP/s, copy {traffic / 1e9:.1f} GB/s (read and written)\n")
    print(_COLUMNS)
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

        def load() -> None:
            with torch.device("meta"):
                model = OneToAllTransformer3DModel(**asdict(subject.network))
            assign_checkpoint(model, Path(folder), clock.device, subject.latents.dtype, "")

        seconds = clock.timing(load).median
        _row("load the transformer (cached file)", seconds, note=f"{size / seconds / 1e6:.0f} MB/s of bfloat16 weights")


def _measure_prompt(clock: Clock, small: bool, subject: Subject) -> None:
    encode = prompt_call(clock.device, subject.latents.dtype, small=small)
    _row("prompt", clock.timing(encode).median, peak=clock.peak(encode))


def _measure_vae(clock: Clock, small: bool, subject: Subject) -> None:
    vae = random_vae(clock.device, subject.latents.dtype, small=small)
    picture = subject.clip.reference_pose
    overlap = subject.chunk.poses[:, :, :5].contiguous()
    video = decode_latents(vae, subject.latents)
    for label, call in (
        ("VAE encode, a picture", lambda: encode_latents(vae, picture)),
        ("VAE encode, 5 frames", lambda: encode_latents(vae, overlap)),
        (f"VAE decode, {subject.grid.frame_count} frames", lambda: decode_latents(vae, subject.latents)),
        (f"{subject.grid.frame_count} frames to uint8, on the host", lambda: uint8_from_signed(video)),
    ):
        _row(label, clock.timing(call).median, peak=clock.peak(call))


def _measure_passes(clock: Clock, subject: Subject, ceiling: float) -> None:
    cost, activations = pass_cost(subject.network, subject.grid), ActivationCache()
    subject.step(activations, share_attention=False)  # what is computed once per clip, chunk and step
    for one in subject.guidance.passes:
        flops = cost.every_pass + (cost.control_branch if one.conditioning_scale else 0)
        timing = clock.timing(lambda: subject.run_pass(one, activations))  # noqa: B023 - called at once
        _row(f"pass, {one.name}", timing.median, flops / clock.undisturbed(timing) / ceiling)
    if clock.device.type == "cuda":
        print(f"{'estimate of the memory plan':<34}{sampling_bytes(subject.network, subject.grid) / _MIB:>32.0f}")


def _measure_variants(clock: Clock, subject: Subject, ceiling: float, *, compiled: bool) -> None:
    variants = [*exact_variants(clock, subject, compiled=compiled), *fp8_variants(clock, subject, compiled=compiled)]
    print(
        f"\none step, {len(variants)} variants in turn, {clock.rounds} rounds\n{_COLUMNS}{'plain / it':>12}  difference"
    )
    expected = variants[0].run()
    peaks = {one.name: clock.peak(one.run) for one in variants}
    differences = {one.name: ((one.run() - expected).norm() / expected.norm()).item() for one in variants}
    timings = clock.timings({one.name: one.run for one in variants})
    plain = timings[variants[0].name]
    for one in variants:
        timing = timings[one.name]
        share = one.flops / clock.undisturbed(timing) / ceiling
        print(
            f"{one.name:<34}{timing.median:>10.4f}{share:>12.0%}{peaks[one.name] / _MIB:>10.0f}"
            f"{clock.undisturbed(plain) / clock.undisturbed(timing):>12.2f}  {differences[one.name]:.1e}",
            flush=True,
        )
    print("shares and ratios: of processor time on a CPU, of seconds on CUDA; difference: relative L2 of the velocity")
    if clock.device.type != "cuda":
        shown = ", ".join(f"{one.name} {plain.median / timings[one.name].median:.2f}" for one in variants[1:])
        print(f"plain / it in wall seconds, which other processes disturb: {shown}")


if __name__ == "__main__":
    main()
