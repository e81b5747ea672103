"""Three-axis rotary position embedding: tables, and the two ways of applying them.

See ``attention`` for which tokens are rotated when.

Source: docs/specification.md#embeddings-and-rope. Tables are made in float64 and kept as complex64; the rotation
itself is float32 arithmetic, which at positions up to 1023 stays within float32 rounding of the float64 product (a unit
test holds it to that). One complex product per vector is a tenth of the time of four real ones on a CPU, with equal
bits; compiled blocks form the four real ones, which a compiler fuses with what is around them, and complex ones not.
"""

import torch
from torch import nn

_THETA = 10000.0

RotaryTable = torch.Tensor
"""cos + i sin, complex64 [1, tokens, 1, head dim / 2]; tokens ordered frame, row, column."""

RotaryFactors = torch.Tensor
"""A table seen as (cos, sin), float32 [1, tokens, 1, head dim / 2, 2] (``torch.view_as_real``): what blocks get."""


class OneToAllRotaryPosEmbed(nn.Module):
    """Rotary tables of a token grid, made once per shape and device and then reused.

    The head dims are split into temporal, vertical and horizontal parts; 128 gives 44, 42 and 42. Calling the module
    gives the main stream's table, which context parallelism may cut along the tokens; :meth:`table` is the whole table.
    """

    def __init__(self, attention_head_dim: int, max_seq_len: int) -> None:
        super().__init__()
        spatial = 2 * (attention_head_dim // 6)
        self.axis_dims = (attention_head_dim - 2 * spatial, spatial, spatial)
        self.max_seq_len = max_seq_len
        self._tables: dict[tuple[int, int, int, torch.device], RotaryTable] = {}

    @property
    def temporal_dim(self) -> int:
        """Head dims that carry the frame position; the first ones of each head."""
        return self.axis_dims[0]

    def forward(self, frames: int, height: int, width: int, device: torch.device) -> RotaryTable:
        """The table of a grid of ``frames`` x ``height`` x ``width`` tokens; see :meth:`table`."""
        return self.table(frames, height, width, device)

    def table(self, frames: int, height: int, width: int, device: torch.device) -> RotaryTable:
        """The table of the grid, complex64 [1, frames*height*width, 1, head dim / 2].

        Raises:
            ValueError: an axis is longer than the table.
        """
        key = (frames, height, width, device)
        if key not in self._tables:
            if max(frames, height, width) > self.max_seq_len:
                raise ValueError(
                    f"a grid of {frames}x{height}x{width} tokens exceeds the {self.max_seq_len} positions of the "
                    "rotary table; use a smaller picture or a shorter chunk"
                )
            if len(self._tables) >= 4:  # two chunk lengths and the reference grid are in use at a time
                self._tables.clear()
            self._tables[key] = self._build(frames, height, width, device)
        return self._tables[key]

    def _build(self, frames: int, height: int, width: int, device: torch.device) -> RotaryTable:
        grid = (frames, height, width)
        axes = []
        for axis, (length, dim) in enumerate(zip(grid, self.axis_dims, strict=True)):
            positions = torch.arange(length, dtype=torch.float64)
            frequencies = _THETA ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
            shape = [1, 1, 1, dim // 2]
            shape[axis] = length
            axes.append(torch.outer(positions, frequencies).view(shape).expand(*grid, dim // 2))
        angles = torch.cat(axes, dim=-1).reshape(1, frames * height * width, 1, -1)
        return torch.polar(torch.ones_like(angles), angles).to(device, torch.complex64)


def rotate(states: torch.Tensor, factors: RotaryFactors) -> torch.Tensor:
    """Rotate all pairs (0,1), (2,3), ... of each head vector ("R3").

    Args:
        states: [B, tokens, heads, head dim], any floating dtype; the product is formed in float32.
        factors: of these tokens.
    """
    pairs = states.float().unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():
        (x, y), (cos, sin) = pairs.unbind(-1), factors.unbind(-1)
        rotated = torch.stack((x * cos - y * sin, x * sin + y * cos), dim=-1)
    else:
        rotated = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(factors))
    return rotated.flatten(-2).to(states.dtype)


def rotate_spatial(states: torch.Tensor, factors: RotaryFactors, temporal_dim: int) -> torch.Tensor:
    """Rotate the vertical and horizontal dims only ("R2"); the first ``temporal_dim`` dims pass through untouched."""
    spatial = rotate(states[..., temporal_dim:], factors[..., temporal_dim // 2 :, :])
    return torch.cat((states[..., :temporal_dim], spatial), dim=-1)


def spatial_from_full(states: torch.Tensor, rotated: torch.Tensor, temporal_dim: int) -> torch.Tensor:
    """The result of :func:`rotate_spatial`, taken from a full rotation of the same states that is already there."""
    return torch.cat((states[..., :temporal_dim], rotated[..., temporal_dim:]), dim=-1)
