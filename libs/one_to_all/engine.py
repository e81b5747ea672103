"""The engine: loaded networks, and from pictures and options to the frames of a clip.

Belongs here: joining the parts of this package for one clip. Does not: any of the parts, media files, poses.
"""

import gc
import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Self

import numpy as np
import torch

from libs.errors import DeviceError, DeviceOutOfMemoryError
from libs.model_repo.layout import RepositoryLayout
from libs.one_to_all.compilation import apply_speed
from libs.one_to_all.device import HOST, default_dtype, resolve_device
from libs.one_to_all.events import (
    AnimationEvent,
    AnimationInputs,
    ChunkStore,
    StepFinished,
)
from libs.one_to_all.memory.placement import Placement
from libs.one_to_all.memory.plan import MemoryPlan
from libs.one_to_all.network.activation_cache import ForwardMemo
from libs.one_to_all.network.finite import is_finite
from libs.one_to_all.options import SamplingOptions
from libs.one_to_all.parallel.rank_plans import RankPlans
from libs.one_to_all.sampling.chunk_plan import Chunk, plan_chunks
from libs.one_to_all.sampling.denoise import ChunkConditions, ClipConditions, DenoisingStep, denoise, draw_noise
from libs.one_to_all.sampling.guidance import Guidance, plan_guidance
from libs.one_to_all.sampling.long_video import MakeChunk, animate_chunks, chunk_poses
from libs.one_to_all.sampling.pixels import mask_from_uint8, signed_from_uint8, uint8_from_signed
from libs.one_to_all.sampling.vae import decode_latents, encode_latents
from libs.one_to_all.speed_options import DEFAULT_SPEED, SpeedOptions
from libs.one_to_all.weights.fp8 import computes_in_fp8
from libs.one_to_all.weights.loading import LoadedNetworks, load_networks
from libs.one_to_all.weights.lora_branches import LoraBranches, takes_loras_beside_weights
from libs.one_to_all.weights.lora_file import LoraFile

_logger = logging.getLogger(__name__)

Denoise = Callable[..., Iterator[DenoisingStep]]
"""Arguments and steps of ``sampler.denoise``."""


class AnimationEngine:
    """Loaded networks that make one clip after the other; not for use by several threads at a time."""

    alive: bool = True
    """False where the networks are lost, as those of another process can be."""

    memory_plan: MemoryPlan | RankPlans | None = None
    """Where the networks lie; None for wherever they were loaded to."""

    def __init__(self, networks: LoadedNetworks, device: torch.device, dtype: torch.dtype) -> None:
        self.networks = networks
        self.device = device
        self.dtype = dtype
        self.drop_text_encoder = False
        """Whether its memory is given back once a clip's prompts are encoded; new prompts load it again."""
        self._placement = Placement(networks, device)
        self._lora_branches = LoraBranches(networks.transformer, dtype)
        self.denoise: Denoise = denoise
        """How a chunk is denoised; the leader of several ranks replaces it by what they do together."""

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
        with _weights_fit(resolved):
            beside = takes_loras_beside_weights(layout)
            networks = load_networks(
                layout,
                resolved,
                dtype,
                None if beside else lora,
                transformer_on=HOST if plan is not None and plan.transformer == "offloaded" else None,
                text_encoder_on=HOST if plan is not None and plan.text_encoder == "on the host" else None,
            )
            apply_speed(networks.transformer, speed, resolved, dtype)
            engine = cls(networks, resolved, dtype)
            if beside:
                engine.use_lora(lora)
            if plan is not None:
                engine.follow(plan)
            return engine

    def follow(self, plan: MemoryPlan | RankPlans) -> None:
        """Move the networks to where ``plan`` wants them, between two clips; it must be for their variant.

        Raises:
            DeviceOutOfMemoryError: the device cannot hold them; the engine is of no use any more.
        """
        if isinstance(plan, RankPlans):
            raise ValueError("plans of several ranks are for the engine of these")
        with _weights_fit(self.device):
            self._placement.follow(plan)
        self.drop_text_encoder = plan.text_encoder == "dropped after the prompt"
        self.memory_plan = plan
        self.release_memory()

    def use_lora(self, lora: LoraFile | None) -> None:
        """Have ``lora`` and no other beside FP8 weights, between two clips; None for no LoRA.

        Raises:
            ModelFilesError: see :meth:`LoraBranches.use`; the engine is as it was.
            DeviceOutOfMemoryError: the device cannot hold it; the engine has no LoRA.
        """
        with _weights_fit(self.device):
            changed = self._lora_branches.use(lora)
        if changed:
            self._placement.parameters_changed()

    @property
    def devices(self) -> frozenset[torch.device]:
        """On which it computes."""
        return frozenset({self.device})

    def bytes_on(self, device: torch.device) -> int:
        """Of weights on ``device``, between two clips; the host is one, too."""
        return self._placement.bytes_on(device)

    @property
    def precision(self) -> str:
        """What results depend on, for provenance: the dtype, products in FP8, and what the memory plan changes."""
        products = ["FP8 products"] if computes_in_fp8(self.networks.transformer) else []
        return ", ".join([str(self.dtype), *products, *(self.memory_plan.changes if self.memory_plan else ())])

    def animate(
        self, inputs: AnimationInputs, options: SamplingOptions, chunks: ChunkStore | None = None
    ) -> Generator[AnimationEvent]:
        """Make one clip, yielding events as it is made; nothing runs before the first event is asked for.

        Whoever leaves it before its end closes it: work that goes on elsewhere ends then, not when it is collected.

        Args:
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
        make_chunk = self.chunk_maker(inputs, options)
        try:
            yield from animate_chunks(inputs, plan, make_chunk, chunks)
        except torch.OutOfMemoryError as error:
            raise DeviceOutOfMemoryError(
                f"a chunk of {plan[0].frame_count} frames of {inputs.width}x{inputs.height} pixels does not fit into "
                f"the memory of {self.device}: ask for a smaller size or shorter chunks"
            ) from error

    def chunk_maker(self, inputs: AnimationInputs, options: SamplingOptions) -> MakeChunk:
        """Makes the chunks of one clip, in order; what they share is computed when the first one is made."""
        return _Clip(self, inputs, options).make_chunk

    def release_memory(self) -> None:
        """Give the device back what no clip uses any more; the networks stay. For after a clip that did not end well.

        The exception of that clip must be gone: its traceback holds the tensors.
        """
        self._placement.release_memory()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


@contextmanager
def _weights_fit(device: torch.device) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceOutOfMemoryError(
            f"the weights do not fit into the memory of {device}: use a smaller model variant, or a device with more "
            "memory"
        ) from error


class _Clip:
    """One clip being made: conditions that all its chunks share, computed when the first chunk is made."""

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
        )
        self.memo = ForwardMemo()
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
        steps = engine.denoise(
            networks.transformer,
            networks.scheduler,
            self.guidance,
            conditions,
            ChunkConditions(poses, known),
            noise,
            self.options.num_inference_steps,
            self.memo,
            approximation=self.options.approximation,
        )
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
        if engine.drop_text_encoder:
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
