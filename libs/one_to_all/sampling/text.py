"""Prompts: encoding with the UMT5 text encoder.

What does not belong here: cleaning (``prompt``), projecting the embeddings to the model width (``transformer``),
loading the encoder.

Source: docs/specification.md#prompts.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch

from libs.one_to_all.sampling.prompt import MAX_SEQUENCE_LENGTH, clean_prompt

_KEPT_PROMPTS = 16


class PromptEncoder:
    """Prompt to text embeddings; keeps the latest few, because the negative prompt is mostly the same.

    Args:
        tokenizer: the UMT5 tokenizer (adds an end token, none at the start).
        text_encoder: ``UMT5EncoderModel``, on any device.
        max_sequence_length: tokens per prompt; longer prompts are cut, shorter ones padded.
        reload: gives the text encoder anew, on that device, after :meth:`drop_text_encoder`.
    """

    def __init__(
        self,
        tokenizer: Any,
        text_encoder: Any,
        max_sequence_length: int = MAX_SEQUENCE_LENGTH,
        reload: Callable[[torch.device], Any] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder
        self.max_sequence_length = max_sequence_length
        self._reload = reload
        self._device: torch.device = text_encoder.device
        self._known: OrderedDict[str, torch.Tensor] = OrderedDict()

    def encode(self, prompt: str, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """Embeddings [1, tokens, text width] of the cleaned prompt; positions behind its end are exact zeros."""
        cleaned = clean_prompt(prompt)
        if cleaned in self._known:
            self._known.move_to_end(cleaned)
        else:
            self._known[cleaned] = self._encode(cleaned)
            while len(self._known) > _KEPT_PROMPTS:
                self._known.popitem(last=False)
        return self._known[cleaned].to(device, dtype)

    def drop_text_encoder(self) -> None:
        """Let go of the text encoder's weights, for the memory; the next prompt that is not known loads them again.

        Raises:
            ValueError: it could not be loaded again.
        """
        if self._reload is None:
            raise ValueError("this prompt encoder was made without a way to load its text encoder again")
        self.text_encoder = None

    def move_to(self, device: torch.device) -> None:
        """The text encoder computes on ``device`` from now on; one that was dropped is loaded there when needed."""
        self._device = device
        if self.text_encoder is not None:
            self.text_encoder.to(device)

    @torch.no_grad()
    def _encode(self, cleaned: str) -> torch.Tensor:
        if self.text_encoder is None:
            assert self._reload is not None
            self.text_encoder = self._reload(self._device)
        tokens = self.tokenizer(
            [cleaned],
            padding="max_length",
            max_length=self.max_sequence_length,
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
        )
        device = self.text_encoder.device
        ids, mask = torch.tensor(tokens["input_ids"]), torch.tensor(tokens["attention_mask"])
        embeddings = self.text_encoder(ids.to(device), mask.to(device)).last_hidden_state
        embeddings[:, sum(tokens["attention_mask"][0]) :] = 0
        return embeddings
