"""Denoising one chunk: a generator that yields after every step.

The noise, the loop over steps and guidance passes, and the latent frames that are taken over from the previous chunk.
See ``long_video`` for the chunks of a clip, and ``vae`` for encoding and decoding.

Source: docs/specification.md#pipeline. What does not change over steps, or is shared by the passes of a step, is
computed once (``ActivationCache``); passes without pose do not run the control branch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from libs.one_to_all.network import REPLACED_LATENT_FRAMES, ActivationCache, OneToAllTransformer3DModel, cached_blocks
from libs.one_to_all.sampling.approximation import EXACT, Approximation
from libs.one_to_all.sampling.guidance import Guidance, GuidancePass, PassName
from libs.one_to_all.sampling.schedule import SHIFT, Sampler, SamplerName, Schedule, build_sampler, noise_levels


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
    """What differs from chunk to chunk.

    Args:
        poses: [1, 3, T, H, W] in [-1, 1].
        previous_latents: latents [1, 16, 2, h, w] of the frames that the chunk continues from, if there are any.
    """

    poses: torch.Tensor
    previous_latents: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class ChunkTask:
    """Everything that determines the latents of one chunk, beside the network.

    Args:
        guidance: the passes of every step.
        clip: conditions of the clip; pass the same object for all its chunks.
        chunk: conditions of this chunk.
        noise: [1, 16, F, h, w].
        num_inference_steps: steps to make.
        approximation: work to leave out.
        shift: of the noise levels.
        schedule: of the noise levels.
        sampler: how latents step from one to the next.
    """

    guidance: Guidance
    clip: ClipConditions
    chunk: ChunkConditions
    noise: torch.Tensor
    num_inference_steps: int
    approximation: Approximation = EXACT
    shift: float = SHIFT
    schedule: Schedule = "default"
    sampler: SamplerName = "euler"

    @property
    def first_latents(self) -> torch.Tensor:
        """The noise, with known latents in place of its first frames."""
        known = self.chunk.previous_latents
        return self.noise if known is None else torch.cat((known, self.noise[:, :, REPLACED_LATENT_FRAMES:]), dim=2)

    def guidance_of_step(self, index: int) -> Guidance:
        """The guidance of step ``index`` (from 0): the last steps may make the conditional pass only."""
        guided_steps = self.approximation.guided_steps(self.num_inference_steps)
        return self.guidance if index < guided_steps else self.guidance.unguided()


@dataclass(frozen=True, eq=False)
class DenoisingStep:
    """State after step ``step`` of ``step_count`` (from 1); after the last, ``latents`` are the result."""

    step: int
    step_count: int
    latents: torch.Tensor


class PassGroup(Protocol):
    """Processes that divide the guidance passes of each step among themselves (see ``libs.one_to_all.parallel``)."""

    def local_passes(self, passes: Sequence[GuidancePass]) -> Sequence[GuidancePass]:
        """Those of ``passes`` that this process computes."""

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
    task: ChunkTask,
    activations: ActivationCache | None = None,
    group: PassGroup | None = None,
) -> Iterator[DenoisingStep]:
    """Denoise one chunk, yielding after every step.

    Args:
        transformer: in evaluation mode; its dtype is that of all tensors here.
        scheduler: as ``build_scheduler`` makes it, for the default schedule; a task of another shift gets its own.
        task: the chunk.
        activations: of this clip, shared by its chunks.
        group: processes that denoise the same chunk at the same time; None computes all passes here.
    """
    activations = ActivationCache() if activations is None else activations
    activations.start_chunk()
    passes = ChunkPasses(transformer, task.clip, task.chunk, activations)
    levels = noise_levels(scheduler, task.schedule, task.num_inference_steps, task.shift)
    sampler = build_sampler(task.sampler, levels)
    timesteps = levels.timesteps.to(task.noise.device)  # once: a copy waits for all that the device has been given
    latents = task.first_latents

    # The block cache ends with the chunk: decoding needs its memory.
    with cached_blocks(transformer, task.approximation.block_cache_threshold):
        for index in range(task.num_inference_steps):
            guidance = task.guidance_of_step(index)
            timestep = timesteps[index].expand(latents.shape[0])
            velocities = _velocities(passes, guidance.passes, latents, timestep, group)
            latents = _step(sampler, latents, guidance.combine(velocities), index, task.chunk.previous_latents)
            yield DenoisingStep(index + 1, task.num_inference_steps, latents)
    activations.start_chunk()


class ChunkPasses:
    """The guidance passes of one chunk: which conditions each of them gives to the network."""

    def __init__(
        self,
        transformer: OneToAllTransformer3DModel,
        clip: ClipConditions,
        chunk: ChunkConditions,
        activations: ActivationCache,
    ) -> None:
        self.transformer = transformer
        self.activations = activations
        self._clip = clip
        self._chunk = chunk
        self._black_poses: tuple[torch.Tensor, torch.Tensor] | None = None

    def run(self, guidance_pass: GuidancePass, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """The velocity of one pass, [1, 16, F, h, w].

        Args:
            guidance_pass: which of the two values each condition has.
            latents: of this step.
            timestep: [1], on the device.
        """
        clip = self._clip
        text = clip.negative_prompt if guidance_pass.negative_prompt else clip.prompt
        if text is None:
            raise ValueError(f"the {guidance_pass.name} pass needs the embeddings of the negative prompt")
        pose_video, reference_pose = self._poses(guidance_pass)
        velocity: torch.Tensor = self.transformer(
            latents,
            timestep,
            text,
            pose_video,
            clip.black_latents if guidance_pass.black_image else clip.image_latents,
            reference_pose,
            conditioning_scale=guidance_pass.conditioning_scale,
            token_replace=self._chunk.previous_latents is not None,
            activations=self.activations,
            return_dict=False,
        )[0]
        return velocity

    def _poses(self, guidance_pass: GuidancePass) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Pose video and reference pose; the black ones are the same tensors in all passes of the chunk."""
        if guidance_pass.conditioning_scale == 0:
            return None, None  # without strength the poses have no effect at all
        if not guidance_pass.black_pose:
            return self._chunk.poses, self._clip.reference_pose
        if self._black_poses is None:
            self._black_poses = (torch.full_like(self._chunk.poses, -1), torch.full_like(self._clip.reference_pose, -1))
        return self._black_poses


def _velocities(
    chunk_passes: ChunkPasses,
    passes: Sequence[GuidancePass],
    latents: torch.Tensor,
    timestep: torch.Tensor,
    group: PassGroup | None,
) -> dict[PassName, torch.Tensor]:
    """The velocities of all ``passes`` of a step: computed here, or received from the processes of ``group``."""
    local_passes = passes if group is None else group.local_passes(passes)
    images = {one.black_image for one in local_passes}
    chunk_passes.activations.start_step(passes_share_an_image=len(images) < len(local_passes))
    velocities: dict[PassName, torch.Tensor] = {}
    for one in local_passes:
        with chunk_passes.transformer.cache_context(one.name):
            velocities[one.name] = chunk_passes.run(one, latents, timestep)
    if group is not None:
        group.exchange(passes, velocities, latents)
    return velocities


def _step(
    sampler: Sampler, latents: torch.Tensor, velocity: torch.Tensor, index: int, known: torch.Tensor | None
) -> torch.Tensor:
    """The latents after one step; ``known`` latents of the previous chunk stay as they are."""
    if known is None:
        return sampler.step(latents, velocity, index)
    unknown = slice(REPLACED_LATENT_FRAMES, None)
    stepped = sampler.step(latents[:, :, unknown], velocity[:, :, unknown], index)
    return torch.cat((known, stepped), dim=2)
