"""Denoising one chunk: a generator that yields after every step.

Belongs here: noise, the loop over steps and passes, replacing known latent frames. Does not: how passes are joined
(``guidance``), the schedule (``scheduler``), encoding and decoding (``vae``), chunks of a longer clip (``long_video``).

Source: docs/specification.md#pipeline. What does not change over steps, or is shared by the passes of a step,
is computed once (``forward_memo``); passes without pose do not run the control branch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from libs.one_to_all.network.activation_cache import ForwardMemo
from libs.one_to_all.network.approximation import EXACT, Approximation
from libs.one_to_all.network.block_cache import block_cache
from libs.one_to_all.network.transformer import REPLACED_LATENT_FRAMES, OneToAllTransformer3DModel
from libs.one_to_all.sampling.guidance import Guidance, GuidancePass, PassName


@dataclass(frozen=True, eq=False)
class ClipConditions:
    """What is the same for all chunks of a clip.

    Args:
        prompt: text embeddings [1, L, text width].
        negative_prompt: the same, or None where no pass needs it.
        image_latents: latents of reference picture and mask [1, 32, 1, h, w].
        black_latents: latents of a black picture, twice, [1, 32, 1, h, w].
        reference_pose: [1, 3, 1, H, W] in [-1, 1].
    """

    prompt: torch.Tensor
    negative_prompt: torch.Tensor | None
    image_latents: torch.Tensor
    black_latents: torch.Tensor
    reference_pose: torch.Tensor


@dataclass(frozen=True, eq=False)
class ChunkConditions:
    """What is particular to a chunk: poses [1, 3, T, H, W] in [-1, 1], and latents [1, 16, 2, h, w] to go on from."""

    poses: torch.Tensor
    previous_latents: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class DenoisingStep:
    """State after step ``step`` of ``step_count`` (from 1); after the last, ``latents`` are the result."""

    step: int
    step_count: int
    latents: torch.Tensor


class PassSharing(Protocol):
    """How the passes of a step are divided among processes (``parallel.guidance_parallel``)."""

    def local_passes(self, passes: Sequence[GuidancePass]) -> Sequence[GuidancePass]:
        """Those of ``passes`` that this process makes."""

    def exchange(
        self, passes: Sequence[GuidancePass], velocities: dict[PassName, torch.Tensor], like: torch.Tensor
    ) -> None:
        """Add the velocities of the other processes' passes, which have shape, dtype and device of ``like``."""


def draw_noise(shape: tuple[int, ...], seed: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Noise from a fresh generator: one float32 normal draw on the CPU, rounded to ``dtype``.

    Drawn on the CPU for every device, so that a seed means the same clip everywhere.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float32).to(device, dtype)


@torch.no_grad()
def denoise(
    transformer: OneToAllTransformer3DModel,
    scheduler: FlowMatchEulerDiscreteScheduler,
    guidance: Guidance,
    clip: ClipConditions,
    chunk: ChunkConditions,
    noise: torch.Tensor,
    num_inference_steps: int,
    memo: ForwardMemo | None = None,
    approximation: Approximation = EXACT,
    sharing: PassSharing | None = None,
) -> Iterator[DenoisingStep]:
    """Denoise one chunk, yielding after every step.

    Args:
        transformer: in evaluation mode; its dtype is that of all tensors here.
        scheduler: as ``build_scheduler`` makes it.
        guidance: the passes of every step.
        clip: conditions of the clip; pass the same object for all its chunks.
        chunk: conditions of this chunk.
        noise: [1, 16, F, h, w].
        num_inference_steps: steps to make.
        memo: of this clip, shared by its chunks.
        approximation: work to leave out.
        sharing: with other processes that denoise the same chunk at the same time; None makes all passes here.
    """
    memo = ForwardMemo() if memo is None else memo
    memo.start_chunk()
    guided_steps, unguided = approximation.guided_steps(num_inference_steps), guidance.unguided()
    poses = _Poses(clip.reference_pose, chunk.poses)

    scheduler.set_timesteps(num_inference_steps)
    scheduler.set_begin_index(0)
    known = chunk.previous_latents
    latents = noise if known is None else torch.cat((known, noise[:, :, REPLACED_LATENT_FRAMES:]), dim=2)
    timesteps = scheduler.timesteps.to(latents.device)  # once: a copy waits for all that the device has been given
    with block_cache(transformer, approximation.block_cache_threshold):  # of its own; what decoding needs is memory
        for index, time in enumerate(scheduler.timesteps):
            memo.start_step()
            timestep = timesteps[index].expand(latents.shape[0])
            velocities: dict[PassName, torch.Tensor] = {}
            step_guidance = guidance if index < guided_steps else unguided
            passes = step_guidance.passes
            local_passes = passes if sharing is None else sharing.local_passes(passes)
            memo.passes_share_images = len({one.black_image for one in local_passes}) < len(local_passes)
            for guidance_pass in local_passes:
                with transformer.cache_context(guidance_pass.name):
                    velocities[guidance_pass.name] = _run_pass(
                        transformer, guidance_pass, clip, poses, latents, timestep, known is not None, memo
                    )
            if sharing is not None:
                sharing.exchange(passes, velocities, latents)
            velocity = step_guidance.combine(velocities)
            if known is None:
                latents = scheduler.step(velocity, time, latents, return_dict=False)[0]
            else:
                unknown = slice(REPLACED_LATENT_FRAMES, None)
                stepped = scheduler.step(velocity[:, :, unknown], time, latents[:, :, unknown], return_dict=False)[0]
                latents = torch.cat((known, stepped), dim=2)
            yield DenoisingStep(index + 1, num_inference_steps, latents)
    memo.start_chunk()


class _Poses:
    """Given and black poses of a chunk; the black ones are made when a pass asks for them, and then kept."""

    def __init__(self, reference: torch.Tensor, video: torch.Tensor) -> None:
        self._given = (video, reference)
        self._black: tuple[torch.Tensor, torch.Tensor] | None = None

    def of(self, guidance_pass: GuidancePass) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        if guidance_pass.conditioning_scale == 0:
            return None, None  # without strength the poses have no effect at all
        if not guidance_pass.black_pose:
            return self._given
        if self._black is None:
            video, reference = self._given
            self._black = (torch.full_like(video, -1), torch.full_like(reference, -1))
        return self._black


def _run_pass(
    transformer: OneToAllTransformer3DModel,
    guidance_pass: GuidancePass,
    clip: ClipConditions,
    poses: _Poses,
    latents: torch.Tensor,
    timestep: torch.Tensor,
    token_replace: bool,
    memo: ForwardMemo,
) -> torch.Tensor:
    text = clip.negative_prompt if guidance_pass.negative_prompt else clip.prompt
    if text is None:
        raise ValueError(f"the {guidance_pass.name} pass needs the embeddings of the negative prompt")
    pose_video, reference_pose = poses.of(guidance_pass)
    velocity: torch.Tensor = transformer(
        latents,
        timestep,
        text,
        pose_video,
        clip.black_latents if guidance_pass.black_image else clip.image_latents,
        reference_pose,
        conditioning_scale=guidance_pass.conditioning_scale,
        token_replace=token_replace,
        memo=memo,
        return_dict=False,
    )[0]
    return velocity
