"""Prompts that training reads, and their embeddings by the sandbox's own tokenizer and text encoder."""

from dataclasses import dataclass

import numpy as np
import torch

from libs.sandbox.phrases import ACTIONS, LIGHTS, OTHER_WORDS, PLACES, SUBJECTS
from libs.sandbox.prompt_encoder import build_text_encoder, build_tokenizer
from libs.sandbox.sizes import NETWORK

_EMPTY_SHARE = 0.1
_OTHER_WORDS_SHARE = 0.5


@dataclass(frozen=True)
class EncodedPrompt:
    """Embeddings [L, width] of a prompt's own tokens, and how many rows of zeros follow in the product."""

    embeddings: torch.Tensor
    padding: int


class TrainingPrompts:
    """Encodes prompts once and remembers them."""

    def __init__(self) -> None:
        self._tokenizer = build_tokenizer()
        generator = torch.Generator().manual_seed(0)
        self._encoder = build_text_encoder(len(self._tokenizer), NETWORK.text_dim, generator)
        self._known: dict[str, EncodedPrompt] = {}

    @torch.no_grad()
    def encode(self, prompt: str) -> EncodedPrompt:
        """The embeddings of ``prompt``."""
        if prompt not in self._known:
            ids = torch.tensor([self._tokenizer(prompt)["input_ids"]])
            rows = self._encoder(ids, torch.ones_like(ids)).last_hidden_state[0]
            self._known[prompt] = EncodedPrompt(rows, self._tokenizer.model_max_length - len(rows))
        return self._known[prompt]

    def batch(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings [B, L + 1, width] and what to add to the logits of each row [B, 1, 1, L + 1].

        The last row stands for all rows of zeros: attention to n equal rows is attention to one of them with log n
        more. Rows that fill up shorter prompts are left out.
        """
        encoded = [self.encode(prompt) for prompt in prompts]
        longest = max(len(one.embeddings) for one in encoded)
        rows = torch.zeros(len(encoded), longest + 1, NETWORK.text_dim)
        bias = torch.full((len(encoded), 1, 1, longest + 1), -torch.inf)
        for index, one in enumerate(encoded):
            count = len(one.embeddings)
            rows[index, :count] = one.embeddings
            bias[index, ..., :count] = 0.0
            bias[index, ..., -1] = float(np.log(one.padding))
        return rows, bias


def random_prompt(g: np.random.Generator, light: str) -> str:
    """A sentence that names the light, if it is not neutral; half of them with words that do not matter."""

    def one_of(choices: tuple[str, ...]) -> str:
        return choices[int(g.integers(len(choices)))]

    if light == "neutral" and g.random() < _EMPTY_SHARE:
        return ""
    sentence = one_of(SUBJECTS) + " " + one_of(ACTIONS) + one_of(PLACES)
    if g.random() < _OTHER_WORDS_SHARE:
        sentence += ", " + " ".join(g.choice(OTHER_WORDS, int(g.integers(1, 7))))
    return sentence + one_of(LIGHTS[light])
