"""Engines: loaded networks that turn pictures and options into the frames of a clip.

``AnimationEngine`` computes in this process, on one device; ``parallel.engine.ParallelEngine`` has several processes
compute. See ``engine_cache`` for the engines that a worker keeps.
"""

import gc
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Protocol, Self

import numpy as np
import torch

from libs.errors import DeviceError, DeviceOutOfMemoryError, is_out_of_memory
from libs.model_repo.layout import RepositoryLayout
from libs.one_to_all.compilation import apply_speed
from libs.one_to_all.device import HOST, default_dtype, resolve_device
from libs.one_to_all.events import (
    AnimationEvent,
    AnimationInputs,
    ChunkStore,
    StepFinished,
)
from libs.one_to_all.finite import is_finite
from libs.one_to_all.memory.placement import PlacedNetworks
from libs.one_to_all.memory.plan import MemoryPlan
from libs.one_to_all.network import ActivationCache
from libs.one_to_all.options import SamplingOptions
from libs.one_to_all.sampling.chunk_plan import Chunk, plan_chunks
from libs.one_to_all.sampling.denoise import (
    ChunkConditions,
    ChunkTask,
    ClipConditions,
    DenoisingStep,
    denoise,
    draw_noise,
)
from libs.one_to_all.sampling.guidance import Guidance, plan_guidance
from libs.one_to_all.sampling.long_video import MakeChunk, animate_chunks, chunk_poses
from libs.one_to_all.sampling.vae import (
    decode_latents,
    encode_latents,
    mask_from_uint8,
    signed_from_uint8,
    uint8_from_signed,
)
from libs.one_to_all.speed_options import DEFAULT_SPEED, SpeedOptions
from libs.one_to_all.weights.fp8 import computes_in_fp8
from libs.one_to_all.weights.loading import LoadedNetworks, load_networks
from libs.one_to_all.weights.lora import UnfusedLora, keeps_lora_unfused
from libs.one_to_all.weights.lora_file import LoraFile

Denoise = Callable[..., Iterator[DenoisingStep]]
"""A function with the arguments and steps of ``sampling.denoise.denoise``."""


class Engine(Protocol):
    """Loaded networks that make one clip after the other; not for use by several threads at a time."""

    @property
    def device(self) -> torch.device:
        """The device on which clips are encoded and decoded: the first one, where there are several."""

    @property
    def devices(self) -> frozenset[torch.device]:
        """All devices on which it computes."""

    @property
    def memory_plan(self) -> MemoryPlan | None:
        """The plan by which the networks are placed; None if they are still where they were loaded."""

    @property
    def precision(self) -> str:
        """What results depend on, for provenance: dtype, FP8 products, the memory plan's changes, split tokens."""

    @property
    def alive(self) -> bool:
        """False after the networks are lost, as those of other processes can be."""

    def animate(
        self, inputs: AnimationInputs, options: SamplingOptions, chunks: ChunkStore | None = None
    ) -> Generator[AnimationEvent]:
        """Make one clip, yielding events as it is made; see :func:`animate_clip`."""

    def chunk_maker(self, inputs: AnimationInputs, options: SamplingOptions) -> MakeChunk:
        """Return what makes the chunks of one clip, in order."""

    def place(self, plan: MemoryPlan) -> None:
        """Move the networks to where ``plan`` wants them, between two clips."""

    def set_lora(self, lora: LoraFile | None) -> None:
        """Use ``lora`` and no other beside FP8 weights, between two clips; None for no LoRA."""

    def bytes_on(self, device: torch.device) -> int:
        """Bytes of weights on ``device`` between two clips; the host is a device, too."""

    def release_memory(self) -> None:
        """Release device memory that no clip uses; the networks stay."""


def animate_clip(
    engine: Engine, inputs: AnimationInputs, options: SamplingOptions, chunks: ChunkStore | None = None
) -> Generator[AnimationEvent]:
    """Make one clip, yielding events as it is made; nothing runs before the first event is asked for.

    Whoever leaves it before its end closes it: work that goes on elsewhere ends then, not when it is collected.

    Args:
        engine: makes the chunks.
        inputs: the pictures; poses are asked for chunk by chunk.
        options: what determines the clip beside them.
        chunks: where finished chunks are kept; a run that finds some there does not make them again.

    Yields:
        ``ChunkStarted``, ``StepFinished`` and ``FramesReady``; the frames of all ``FramesReady`` together are
        exactly ``inputs.frame_count``.

    Raises:
        InputError: the clip cannot be planned, or stored chunks belong to another clip.
        DeviceError: what the network computed is no number.
        DeviceOutOfMemoryError: a chunk of this size does not fit.
    """
    plan = plan_chunks(inputs.frame_count, options.chunk_lengths)
    make_chunk = engine.chunk_maker(inputs, options)
    try:
        yield from animate_chunks(inputs, plan, make_chunk, chunks, colours_matched=options.match_colours)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceOutOfMemoryError(
            f"a chunk of {plan[0].frame_count} frames of {inputs.width}x{inputs.height} pixels does not fit into "
            f"the memory of {engine.device}: ask for a smaller size or shorter chunks"
        ) from error


class AnimationEngine:
    """The engine of one process: an :class:`Engine` whose networks compute here, on one device.

    Args:
        networks: loaded anywhere; a memory plan is carried out by :meth:`place`.
        device: where they compute.
        dtype: in which they compute.
    """

    alive = True
    """Networks of this process are never lost."""

    def __init__(self, networks: LoadedNetworks, device: torch.device, dtype: torch.dtype) -> None:
        self.networks = networks
        self.device = device
        self.dtype = dtype
        self.memory_plan: MemoryPlan | None = None
        self.denoise: Denoise = denoise
        """How a chunk is denoised; rank 0 of several replaces it by what all ranks do together."""
        self.placed = PlacedNetworks(networks, device)
        self._unfused_lora = UnfusedLora(networks.transformer, dtype)

    @classmethod
    def load(
        cls,
        layout: RepositoryLayout,
        device: str = "auto",
        dtype: torch.dtype | None = None,
        lora: LoraFile | None = None,
        speed: SpeedOptions = DEFAULT_SPEED,
        plan: MemoryPlan | None = None,
    ) -> Self:
        """Load the networks of one model repository.

        Args:
            layout: where the files lie.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            dtype: of all networks; bfloat16 on CUDA and float32 on the CPU when left out.
            lora: added to the weights of the transformer, or beside them where they are FP8.
            speed: how the transformer computes.
            plan: where the networks lie, and how long; all on the device when left out.

        Raises:
            ModelFilesError: a file is missing or wrong, or the LoRA is for another network.
            DeviceError: there is no such device, or it cannot do what ``speed`` asks for.
            DeviceOutOfMemoryError: the device cannot hold the weights.
        """
        resolved = resolve_device(device)
        dtype = dtype or default_dtype(resolved)
        placement = None if plan is None else plan.placement
        beside = keeps_lora_unfused(layout)
        with _weights_fit(resolved):
            networks = load_networks(
                layout,
                resolved,
                dtype,
                None if beside else lora,
                transformer_on=HOST if placement is not None and placement.transformer == "offloaded" else None,
                text_encoder_on=HOST if placement is not None and placement.text_encoder == "on the host" else None,
            )
            apply_speed(networks.transformer, speed, resolved, dtype)
            engine = cls(networks, resolved, dtype)
            if beside:
                engine.set_lora(lora)
            if plan is not None:
                engine.place(plan)
            return engine

    def place(self, plan: MemoryPlan) -> None:
        """Move the networks to where ``plan`` wants them, between two clips; it must be for their variant.

        Raises:
            DeviceOutOfMemoryError: the device cannot hold them; the engine can no longer be used.
        """
        with _weights_fit(self.device):
            self.placed.place(plan.placement)
        self.memory_plan = plan
        self.release_memory()

    def set_lora(self, lora: LoraFile | None) -> None:
        """Use ``lora`` and no other beside FP8 weights, between two clips; None for no LoRA.

        Raises:
            ModelFilesError: see :meth:`UnfusedLora.set`; the engine is as it was.
            DeviceOutOfMemoryError: the device cannot hold it; the engine has no LoRA.
        """
        with _weights_fit(self.device):
            changed = self._unfused_lora.set(lora)
        if changed:
            self.placed.parameters_changed()

    @property
    def devices(self) -> frozenset[torch.device]:
        """The one device on which it computes."""
        return frozenset({self.device})

    def bytes_on(self, device: torch.device) -> int:
        """Bytes of weights on ``device`` between two clips; the host is a device, too."""
        return self.placed.bytes_on(device)

    @property
    def drops_text_encoder(self) -> bool:
        """Whether the text encoder's memory is given back once prompts are encoded; new prompts load it again."""
        plan = self.memory_plan
        return plan is not None and plan.placement.text_encoder == "dropped after the prompt"

    @property
    def precision(self) -> str:
        """What results depend on, for provenance: the dtype, products in FP8, and what the memory plan changes."""
        products = ["FP8 products"] if computes_in_fp8(self.networks.transformer) else []
        return ", ".join([str(self.dtype), *products, *(self.memory_plan.changes if self.memory_plan else ())])

    def animate(
        self, inputs: AnimationInputs, options: SamplingOptions, chunks: ChunkStore | None = None
    ) -> Generator[AnimationEvent]:
        """Make one clip, yielding events as it is made; see :func:`animate_clip`."""
        return animate_clip(self, inputs, options, chunks)

    def chunk_maker(self, inputs: AnimationInputs, options: SamplingOptions) -> MakeChunk:
        """Return what makes the chunks of one clip; what they share is computed when the first one is made."""
        return _Clip(self, inputs, options).make_chunk

    def release_memory(self) -> None:
        """Release device memory that no clip uses; the networks stay. For use after a failed clip.

        The exception of that clip must be gone: its traceback holds the tensors.
        """
        self.placed.release_memory()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


@contextmanager
def _weights_fit(device: torch.device) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceOutOfMemoryError(
            f"the weights do not fit into the memory of {device}: use a smaller model variant, or a device with more "
            "memory"
        ) from error


class _Clip:
    """One clip that is being made; conditions that its chunks share are computed with the first one."""

    def __init__(self, engine: AnimationEngine, inputs: AnimationInputs, options: SamplingOptions) -> None:
        self.engine = engine
        self.inputs = inputs
        self.options = options
        self.guidance: Guidance = plan_guidance(
            options.image_guidance_scale,
            options.pose_guidance_scale,
            options.conditioning_scale,
            options.intermediate_pass,
            options.unguided_pose,
            options.pose_guidance_alone,
        )
        self.activations = ActivationCache()
        self._conditions: ClipConditions | None = None

    def make_chunk(self, chunk: Chunk, previous: np.ndarray | None) -> Iterator[StepFinished | np.ndarray]:
        """Denoise and decode one chunk; yields steps, then the frames uint8 [n, H, W, 3]."""
        engine, networks = self.engine, self.engine.networks
        if self._conditions is None:
            self._conditions = self._encode_conditions()
        conditions = self._conditions
        poses = self._signed(chunk_poses(self.inputs, chunk))
        known = None if previous is None else encode_latents(networks.vae, self._signed(previous))

        _, channels, _, height, width = conditions.image_latents.shape
        shape = (1, channels // 2, (chunk.frame_count - 1) // 4 + 1, height, width)
        noise = draw_noise(shape, self.options.seed, engine.device, engine.dtype)
        task = ChunkTask(
            self.guidance,
            conditions,
            ChunkConditions(poses, known),
            noise,
            self.options.num_inference_steps,
            self.options.approximation,
            self.options.shift,
            self.options.schedule,
            self.options.sampler,
        )
        steps = engine.denoise(networks.transformer, networks.scheduler, task, self.activations)
        latents = noise
        for step in steps:
            latents = step.latents
            if step.step in {1, step.step_count} and not is_finite(latents):  # not each: looking waits for the device
                raise DeviceError(
                    f"chunk {chunk.index} is not finite (NaN or infinity) after step {step.step}, and would be black: "
                    "try without the LoRA if there is one, with ONE_TO_ALL_FP8_COMPUTE=false, or on another device"
                )
            yield StepFinished(chunk.index, step.step, step.step_count)
        yield uint8_from_signed(decode_latents(networks.vae, latents))

    def _encode_conditions(self) -> ClipConditions:
        engine, options = self.engine, self.options
        prompts, vae = engine.networks.prompt_encoder, engine.networks.vae
        negative = None
        if self.guidance.uses_negative_prompt:
            negative = prompts.encode(options.negative_prompt, engine.device, engine.dtype)
        prompt = prompts.encode(options.prompt, engine.device, engine.dtype)
        if engine.drops_text_encoder:
            prompts.drop_text_encoder()
            engine.release_memory()
        image = self._signed(self.inputs.image[None])
        mask = mask_from_uint8(self.inputs.mask, engine.device, engine.dtype)
        black = encode_latents(vae, torch.full_like(image, -1))
        return ClipConditions(
            prompt=prompt,
            negative_prompt=negative,
            image_latents=torch.cat((encode_latents(vae, image), encode_latents(vae, mask)), dim=1),
            black_latents=torch.cat((black, black), dim=1),
            reference_pose=self._signed(self.inputs.reference_pose[None]),
        )

    def _signed(self, pixels: np.ndarray) -> torch.Tensor:
        return signed_from_uint8(pixels, self.engine.device, self.engine.dtype)
