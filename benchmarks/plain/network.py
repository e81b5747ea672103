"""A pass through the network done plainly: everything recomputed in each pass, rotation in float64, nothing fused.

The yardstick of ``benchmarks/engine.py``, after docs/specification.md#forward-pass. It uses the same
modules and weights as the engine. What does not belong here: anything the project uses.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch

from libs.one_to_all.network import ActivationCache, OneToAllTransformer3DModel, attention, blocks
from libs.one_to_all.network import transformer as network
from libs.one_to_all.network.modulation import TimeModulation, TokenValue
from libs.one_to_all.sampling.denoise import ChunkConditions, ClipConditions
from libs.one_to_all.sampling.guidance import Guidance, GuidancePass


def rotate_in_float64(states: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """The rotary product as upstream forms it: through complex128."""
    pairs = torch.view_as_complex(states.double().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * torch.view_as_complex(factors.double())).flatten(-2).to(states.dtype)


def _rotate_spatial(states: torch.Tensor, factors: torch.Tensor, temporal_dim: int) -> torch.Tensor:
    spatial = rotate_in_float64(states[..., temporal_dim:], factors[..., temporal_dim // 2 :, :])
    return torch.cat((states[..., :temporal_dim], spatial), dim=-1)


@contextmanager
def plain_rotation(transformer: OneToAllTransformer3DModel) -> Iterator[None]:
    """Rotation in float64, a second one for the queries of the reference attention, and new tables in each pass."""

    def spatial_again(states: torch.Tensor, _rotated: torch.Tensor, temporal_dim: int) -> torch.Tensor:
        return _rotate_spatial(states, current[0], temporal_dim)

    current: list[torch.Tensor] = []

    def remembered(states: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        current[:] = [factors]
        return rotate_in_float64(states, factors)

    replacements = {"rotate": remembered, "rotate_spatial": _rotate_spatial, "spatial_from_full": spatial_again}
    with mock.patch.multiple(attention, **replacements):
        transformer.rope._tables.clear()
        yield


def _modulate(
    normed: torch.Tensor, shift: TokenValue, scale: TokenValue, time: TimeModulation, dtype: torch.dtype
) -> torch.Tensor:
    return (normed * (1 + scale.per_token(time)) + shift.per_token(time)).to(dtype)


def _add_gated(
    hidden_states: torch.Tensor, output: torch.Tensor, gate: TokenValue, time: TimeModulation
) -> torch.Tensor:
    return (hidden_states.float() + output * gate.per_token(time)).to(hidden_states.dtype)


def _rms_norm(norm: attention.RMSNorm, hidden_states: torch.Tensor) -> torch.Tensor:
    mean_square = hidden_states.float().pow(2).mean(-1, keepdim=True)
    return (hidden_states * torch.rsqrt(mean_square + norm.eps)).to(hidden_states.dtype) * norm.weight


@contextmanager
def nothing_fused() -> Iterator[None]:
    """Norms, modulation and gates operation by operation."""
    with (
        mock.patch.multiple(blocks, modulate=_modulate, add_gated=_add_gated),
        mock.patch.object(network, "modulate", _modulate),
        mock.patch.object(attention.RMSNorm, "forward", _rms_norm),
    ):
        yield


def plain_pass(
    transformer: OneToAllTransformer3DModel,
    one: GuidancePass,
    clip: ClipConditions,
    chunk: ChunkConditions,
    latents: torch.Tensor,
    timestep: torch.Tensor,
) -> torch.Tensor:
    """One pass's velocity, nothing remembered; without strength the control branch runs, and adds zeros."""
    text = clip.negative_prompt if one.negative_prompt else clip.prompt
    black = (torch.full_like(chunk.poses, -1), torch.full_like(clip.reference_pose, -1))
    poses, reference_pose = black if one.black_pose else (chunk.poses, clip.reference_pose)
    scale = torch.tensor(one.conditioning_scale, dtype=latents.dtype, device=latents.device)
    control = _RunAnyway(scale)
    with plain_rotation(transformer), nothing_fused():
        velocity: torch.Tensor = transformer(
            latents,
            timestep,
            text,
            poses,
            clip.black_latents if one.black_image else clip.image_latents,
            reference_pose,
            conditioning_scale=control,  # type: ignore[arg-type]
            activations=ActivationCache(),
            return_dict=False,
        )[0]
    return velocity


class _RunAnyway:
    """A strength of the pose that is never taken for zero, so that the control branch runs."""

    def __init__(self, scale: torch.Tensor) -> None:
        self.scale = scale

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]

    def __rmul__(self, residual: torch.Tensor) -> torch.Tensor:
        return residual * self.scale


def plain_velocity(
    transformer: OneToAllTransformer3DModel,
    guidance: Guidance,
    clip: ClipConditions,
    chunk: ChunkConditions,
    latents: torch.Tensor,
    timestep: torch.Tensor,
) -> torch.Tensor:
    """All passes of one step, joined."""
    velocities = {one.name: plain_pass(transformer, one, clip, chunk, latents, timestep) for one in guidance.passes}
    return guidance.combine(velocities)
