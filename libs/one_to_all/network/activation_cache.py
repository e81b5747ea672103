"""What several passes through the network share: each piece is computed once and then remembered.

The network asks for its pieces (projected text, pose tokens, prefix, reference features, time embeddings) through
:meth:`ForwardMemo.once`; the sampler decides how long they live. A piece is known by its name and by the *identity* of
the tensors it is made from, so a caller shares it by passing the same tensor objects and must not change them in place.
The memo keeps these tensors, so an identity is never reused while it is known.

What does not belong here: how a piece is computed (``transformer``).
"""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch

Scope = Literal["clip", "chunk", "step"]
Piece = TypeVar("Piece")

# Keys and values of the text are kept while they are small. At full size they cost 420 MB per prompt and save 0.04 % of
# the arithmetic; in small networks text is a large share of it.
_LARGEST_KEPT_TEXT_KEYS = 256 * 2**20


class ForwardMemo:
    """Pieces by scope: for the whole clip, for one chunk of it, for one denoising step."""

    def __init__(self) -> None:
        self._known: dict[Scope, dict[tuple[Any, ...], tuple[tuple[Any, ...], Any]]] = {
            "clip": {},
            "chunk": {},
            "step": {},
        }
        self.passes_share_images = False
        """Some passes of a step have the same image: then they share what of the first block comes before the text."""

    def start_chunk(self) -> None:
        """Forget what belonged to the previous chunk and step."""
        self._known["chunk"].clear()
        self.start_step()

    def start_step(self) -> None:
        """Forget what belonged to the previous step."""
        self._known["step"].clear()

    def once(self, scope: Scope, piece: str, inputs: tuple[torch.Tensor, ...], compute: Callable[[], Piece]) -> Piece:
        """The piece made from ``inputs``, computed by ``compute`` the first time it is asked for in this scope."""
        key = (piece, *(id(tensor) for tensor in inputs))
        known = self._known[scope]
        if key not in known:
            known[key] = (inputs, compute())
        result: Piece = known[key][1]
        return result

    def first_attention(self, inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor] | None:
        """For ``attended`` of the first main block, in a step with these inputs; None where no pass would use it.

        In the first block text and pose have not reached the stream yet: behind its self attention it depends on
        latents, time and image alone.
        """
        if not self.passes_share_images:
            return None
        empty: list[torch.Tensor] = []
        return self.once("step", "first attention", inputs, lambda: empty)

    def text_keys(self, text: torch.Tensor, num_layers: int) -> list[list[torch.Tensor]] | None:
        """One list per block for key and value of the projected ``text`` [B, L, D]; None where they would be large."""
        if 2 * num_layers * text.numel() * text.element_size() > _LARGEST_KEPT_TEXT_KEYS:
            return None
        empty: list[list[torch.Tensor]] = [[] for _ in range(num_layers)]
        return self.once("clip", "text keys", (text,), lambda: empty)
