"""Modulation: shift, scale and gate that the time embedding gives each token, and the sums they are used in.

Belongs here: which token gets which values, and their arithmetic: float32, rounded once. Does not: where in a block
they apply (``blocks``, ``transformer``), the embedding itself (``embeddings``).

Source: docs/specification.md#blocks (with token replacement) and #precision. Two forms of the same
arithmetic: for a compiler (and for gradients) plain expressions, which it fuses; otherwise one fused product-sum over
all tokens and one over the replaced ones. Spelled out, each of them would move the stream through memory several times,
and the values of two groups of tokens would be written out as large as the stream.
"""

from typing import NamedTuple

import torch


class TimeModulation(NamedTuple):
    """What the time embedding contributes to one step, for all tokens or for two groups of tokens.

    ``projection`` [B, 6, D] holds shift, scale, gate of the attention, then of the feed-forward. With token
    replacement ``replaced_projection`` is the same made from t = 0, ``replaced_tokens`` (bool [1, N, 1]) says which
    tokens use it, and ``replaced_range`` the same as (first, behind the last): they lie side by side.
    """

    projection: torch.Tensor
    replaced_projection: torch.Tensor | None = None
    replaced_tokens: torch.Tensor | None = None
    replaced_range: tuple[int, int] = (0, 0)

    @property
    def rows(self) -> slice:
        """The replaced tokens."""
        return slice(*self.replaced_range)


class Part(NamedTuple):
    """One of the modulation's values, [B, 1, D]; ``replaced`` is that of replaced tokens, where there are any."""

    value: torch.Tensor
    replaced: torch.Tensor | None = None

    def plus_one(self) -> "Part":
        """1 + each."""
        return Part(1 + self.value, None if self.replaced is None else 1 + self.replaced)

    def of_each_token(self, time: TimeModulation) -> torch.Tensor:
        """[B, 1, D], or [B, N, D] where two groups of tokens differ."""
        if self.replaced is None:
            return self.value
        assert time.replaced_tokens is not None
        return torch.where(time.replaced_tokens, self.replaced, self.value)


def parts_of(table: torch.Tensor, time: TimeModulation) -> list[Part]:
    """The six float32 parts of a block with this ``table`` [1, 6, D]."""
    values = (table + time.projection.float()).chunk(6, dim=1)
    if time.replaced_projection is None:
        return [Part(value) for value in values]
    replaced = (table + time.replaced_projection.float()).chunk(6, dim=1)
    return [Part(*pair) for pair in zip(values, replaced, strict=True)]


def modulated(normed: torch.Tensor, scale: Part, shift: Part, time: TimeModulation, dtype: torch.dtype) -> torch.Tensor:
    """``normed`` * (1 + scale) + shift: float32 [B, N, D] -> ``dtype``."""
    factor = scale.plus_one()
    if _spelled_out():
        return (normed * factor.of_each_token(time) + shift.of_each_token(time)).to(dtype)
    result = torch.empty_like(normed, dtype=dtype)
    torch.addcmul(shift.value, normed, factor.value, out=result)
    if factor.replaced is not None and shift.replaced is not None:
        rows = time.rows
        torch.addcmul(shift.replaced, normed[:, rows], factor.replaced, out=result[:, rows])
    return result


def gated_sum(hidden_states: torch.Tensor, output: torch.Tensor, gate: Part, time: TimeModulation) -> torch.Tensor:
    """X + gate * output: [B, N, D] in the stream's dtype."""
    if _spelled_out():
        return (hidden_states.float() + output * gate.of_each_token(time)).to(hidden_states.dtype)
    result = torch.empty_like(hidden_states)
    torch.addcmul(hidden_states, output, gate.value, out=result)
    if gate.replaced is not None:
        rows = time.rows
        torch.addcmul(hidden_states[:, rows], output[:, rows], gate.replaced, out=result[:, rows])
    return result


def _spelled_out() -> bool:
    """``out=`` knows no gradients, and hides from a compiler what it could fuse."""
    return torch.compiler.is_compiling() or torch.is_grad_enabled()
