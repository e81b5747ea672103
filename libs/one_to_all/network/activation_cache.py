"""The activation cache: results that several passes through the network share, each computed once.

The network asks for its results (projected text, pose tokens, prefix, reference features, time embeddings) through
:meth:`ActivationCache.get_or_compute`; the sampler decides how long they live. A result is known by its name and by
the *identity* of the tensors it is computed from, so a caller shares it by passing the same tensor objects and must
not change them in place. The cache keeps these tensors, so an identity is never reused while it is known.
"""

from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar

import torch

Scope = Literal["clip", "chunk", "step"]
Result = TypeVar("Result")

# Keys and values of the text are kept while they are small. At full size they cost 420 MB per prompt and save 0.04 % of
# the arithmetic; in small networks text is a large share of it.
_LARGEST_CACHED_TEXT_KEYS = 256 * 2**20


class CacheSlot(Generic[Result]):
    """Room for one result that is computed inside a block, where its weights are on the device."""

    def __init__(self) -> None:
        self._result: Result | None = None

    def get_or_compute(self, compute: Callable[[], Result]) -> Result:
        """The cached result; computed first if there is none."""
        if self._result is None:
            self._result = compute()
        return self._result

    def pop_or_compute(self, compute: Callable[[], Result]) -> Result:
        """Take the cached result out; if there is none, compute one and cache it for the next call."""
        result, self._result = self._result, None
        if result is None:
            result = self._result = compute()
        return result


class ActivationCache:
    """Results by scope: for the whole clip, for one chunk of it, for one denoising step."""

    def __init__(self) -> None:
        self._results: dict[Scope, dict[tuple[Any, ...], tuple[tuple[Any, ...], Any]]] = {
            "clip": {},
            "chunk": {},
            "step": {},
        }
        self._passes_share_an_image = False

    def start_chunk(self) -> None:
        """Forget the results of the previous chunk and step."""
        self._results["chunk"].clear()
        self.start_step()

    def start_step(self, *, passes_share_an_image: bool = False) -> None:
        """Forget the results of the previous step.

        Args:
            passes_share_an_image: some passes of the new step have the same image, so that they share the beginning of
                the first block, see :meth:`first_self_attention`.
        """
        self._results["step"].clear()
        self._passes_share_an_image = passes_share_an_image

    def get_or_compute(
        self, scope: Scope, name: str, inputs: tuple[torch.Tensor, ...], compute: Callable[[], Result]
    ) -> Result:
        """The result ``name`` for ``inputs``; ``compute`` is called the first time it is asked for in this scope."""
        key = (name, *(id(tensor) for tensor in inputs))
        results = self._results[scope]
        if key not in results:
            results[key] = (inputs, compute())
        result: Result = results[key][1]
        return result

    def first_self_attention(self, inputs: tuple[torch.Tensor, ...]) -> CacheSlot[torch.Tensor] | None:
        """Room for the stream behind the first main block's self attention; None where no other pass would use it.

        In the first block text and pose have not reached the stream yet: behind its self attention it depends on
        latents, time and image (``inputs``) alone.
        """
        if not self._passes_share_an_image:
            return None
        return self.get_or_compute("step", "first self attention", inputs, CacheSlot[torch.Tensor])

    def text_keys(
        self, text: torch.Tensor, num_layers: int
    ) -> list[CacheSlot[tuple[torch.Tensor, torch.Tensor]]] | None:
        """Room for each block's key and value of the projected ``text`` [B, L, D]; None where they would be large."""
        if 2 * num_layers * text.numel() * text.element_size() > _LARGEST_CACHED_TEXT_KEYS:
            return None
        return self.get_or_compute(
            "clip",
            "text keys",
            (text,),
            lambda: [CacheSlot[tuple[torch.Tensor, torch.Tensor]]() for _ in range(num_layers)],
        )

    def result_count(self, scope: Scope) -> int:
        """How many results are kept for ``scope``."""
        return len(self._results[scope])
