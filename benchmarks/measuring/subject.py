"""What the engine's benchmark measures: a network of random weights, and inputs of one clip.

Speed does not depend on the values of weights. What does not belong here: timing (``clock``).
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass

import torch
from plain.network import plain_velocity

from libs.model_repo.files.parameters import TensorInfo, is_quantized, scale_name
from libs.model_repo.operations.quantize import quantize_weight
from libs.model_repo.variants import NetworkConfig
from libs.one_to_all.compilation import compile_blocks
from libs.one_to_all.memory.cost import TokenGrid
from libs.one_to_all.network import ActivationCache, OneToAllTransformer3DModel
from libs.one_to_all.sampling.denoise import ChunkConditions, ChunkPasses, ClipConditions
from libs.one_to_all.sampling.guidance import Guidance, GuidancePass, plan_guidance
from libs.one_to_all.weights.fp8 import Fp8Linear, hold_weights_in_fp8

Setting = Callable[[], AbstractContextManager[None]]
"""Makes a context in which something is switched on."""
_SPELLING = {torch.float8_e4m3fn: "F8_E4M3", torch.float16: "F16", torch.float32: "F32", torch.bfloat16: "BF16"}


@dataclass(frozen=True)
class Subject:
    """A network and one step of one clip."""

    network: NetworkConfig
    grid: TokenGrid
    guidance: Guidance
    transformer: OneToAllTransformer3DModel
    clip: ClipConditions
    chunk: ChunkConditions
    latents: torch.Tensor
    timestep: torch.Tensor

    def run_pass(self, one: GuidancePass, activations: ActivationCache) -> torch.Tensor:
        """One pass as the sampler makes it."""
        passes = ChunkPasses(self.transformer, self.clip, self.chunk, activations)
        return passes.run(one, self.latents, self.timestep)

    def step(self, activations: ActivationCache, *, share_attention: bool = True) -> torch.Tensor:
        """All passes of a step, with what clip and chunk share already in ``activations``."""
        activations.start_step(passes_share_an_image=share_attention)
        return self.guidance.combine({one.name: self.run_pass(one, activations) for one in self.guidance.passes})

    def plain_step(self) -> torch.Tensor:
        """The same, everything computed in each pass, without gradients as the sampler runs it."""
        return plain_velocity(self.transformer, self.guidance, self.clip, self.chunk, self.latents, self.timestep)


def make_transformer(network: NetworkConfig, device: torch.device, dtype: torch.dtype) -> OneToAllTransformer3DModel:
    """Weights on ``device``: matrices keep the size of what they are applied to, as in a trained network."""
    with torch.device("meta"):
        transformer = OneToAllTransformer3DModel(**asdict(network)).to(dtype)
    transformer = transformer.to_empty(device=device).eval().requires_grad_(False)
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in transformer.named_parameters():
        if parameter.dim() == 1:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        else:
            parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
    return transformer


def make_subject(
    network: NetworkConfig,
    grid: TokenGrid,
    device: torch.device,
    dtype: torch.dtype,
    transformer: OneToAllTransformer3DModel | None = None,
) -> Subject:
    """Inputs of one step on ``device``, and a network, unless one is given."""
    transformer = transformer or make_transformer(network, device, dtype)
    generator = torch.Generator(device).manual_seed(1)

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


def fp8_copy(transformer: OneToAllTransformer3DModel) -> OneToAllTransformer3DModel:
    """The same network with its linear weights in FP8; all other tensors are shared."""
    state: dict[str, torch.Tensor] = {}
    for name, tensor in transformer.state_dict().items():
        if is_quantized(name, tuple(tensor.shape)):
            state[name], state[scale_name(name)] = quantize_weight(tensor, name)
        else:
            state[name] = tensor
    with torch.device("meta"):
        made = OneToAllTransformer3DModel(**dict(transformer.config))
    infos = {name: TensorInfo(_SPELLING[one.dtype], tuple(one.shape)) for name, one in state.items()}
    hold_weights_in_fp8(made, infos)
    made.load_state_dict(state, assign=True)
    return made.eval().requires_grad_(False)


def compiled_blocks(transformer: OneToAllTransformer3DModel) -> Setting:
    """Compiled inside, as before outside; each block is compiled once."""
    names = transformer._repeated_blocks
    blocks = [module for module in transformer.modules() if type(module).__name__ in names]
    compile_blocks(transformer)
    compiled = [block._compiled_call_impl for block in blocks]

    def switch(on: bool) -> None:
        for block, call in zip(blocks, compiled, strict=True):
            block._compiled_call_impl = call if on else None

    return _switched(switch)


def fp8_products(transformer: OneToAllTransformer3DModel) -> Setting:
    """FP8 products inside (in the layers that can form them), de-quantized weights outside."""
    layers = [layer for layer in transformer.modules() if isinstance(layer, Fp8Linear) and layer.computes_in_fp8]

    def switch(on: bool) -> None:
        for layer in layers:
            layer.computes_in_fp8 = on

    return _switched(switch)


def attention_backend(transformer: OneToAllTransformer3DModel, backend: str) -> Setting:
    """This back-end (diffusers' name) inside, torch's own choice outside."""
    return _switched(lambda on: transformer.set_attention_backend(backend if on else "native"))


def _switched(switch: Callable[[bool], None]) -> Setting:
    switch(False)

    @contextmanager
    def setting() -> Iterator[None]:
        switch(True)
        try:
            yield
        finally:
            switch(False)

    return setting
