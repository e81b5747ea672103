"""Prompts: cleaning them, and encoding them with the UMT5 text encoder.

Light to import: torch is loaded when a prompt is encoded, so that prompts can be cleaned and counted without it. See
``libs.one_to_all.network.transformer`` for projecting the embeddings to the model width.

Source: docs/specification.md#prompts.
"""

import html
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ftfy
import regex

if TYPE_CHECKING:
    import torch

MAX_SEQUENCE_LENGTH = 512
"""Tokens of a prompt that the text encoder reads."""

_CACHED_PROMPTS = 16


def clean_prompt(prompt: str) -> str:
    """The prompt with mojibake and HTML entities repaired and white space joined; letters keep their case."""
    repaired = html.unescape(html.unescape(ftfy.fix_text(prompt))).strip()
    return regex.sub(r"\s+", " ", repaired).strip()


class PromptEncoder:
    """Encodes prompts; keeps the embeddings of the latest few, because the negative prompt is mostly the same.

    Args:
        tokenizer: the UMT5 tokenizer (adds an end token, none at the start).
        text_encoder: ``UMT5EncoderModel``, on any device.
        max_sequence_length: tokens per prompt; longer prompts are cut, shorter ones padded.
        reload: loads the text encoder again, onto that device, after :meth:`drop_text_encoder`.
    """

    def __init__(
        self,
        tokenizer: Any,
        text_encoder: Any,
        max_sequence_length: int = MAX_SEQUENCE_LENGTH,
        reload: "Callable[[torch.device], Any] | None" = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder
        self.max_sequence_length = max_sequence_length
        self._reload = reload
        self._device: torch.device = text_encoder.device
        self._known: OrderedDict[str, torch.Tensor] = OrderedDict()

    def encode(self, prompt: str, device: "torch.device", dtype: "torch.dtype") -> "torch.Tensor":
        """Embeddings [1, tokens, text width] of the cleaned prompt; positions after its end are exact zeros."""
        cleaned = clean_prompt(prompt)
        if cleaned in self._known:
            self._known.move_to_end(cleaned)
        else:
            self._known[cleaned] = self._encode(cleaned)
            while len(self._known) > _CACHED_PROMPTS:
                self._known.popitem(last=False)
        return self._known[cleaned].to(device, dtype)

    def drop_text_encoder(self) -> None:
        """Free the memory of the text encoder's weights; the next prompt that is not known loads them again.

        Raises:
            ValueError: it could not be loaded again.
        """
        if self._reload is None:
            raise ValueError("this prompt encoder was made without a way to load its text encoder again")
        self.text_encoder = None

    def move_to(self, device: "torch.device") -> None:
        """Have the text encoder compute on ``device``; one that was dropped is loaded there when it is needed."""
        self._device = device
        if self.text_encoder is not None:
            self.text_encoder.to(device)

    def _encode(self, cleaned: str) -> "torch.Tensor":
        import torch  # noqa: PLC0415

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
        with torch.no_grad():
            embeddings = self.text_encoder(ids.to(device), mask.to(device)).last_hidden_state
        embeddings[:, sum(tokens["attention_mask"][0]) :] = 0
        return embeddings
