"""Prompts that training reads, and their embeddings by the sandbox's own tokenizer and text encoder."""

from dataclasses import dataclass

import numpy as np
import torch

from libs.sandbox.prompt_encoder import build_text_encoder, build_tokenizer
from libs.sandbox.training.weights import NETWORK

_SUBJECTS = ("a puppet", "a girl", "a robot", "a child", "a person", "someone in a pullover", "a cat", "a boy")
_ACTIONS = ("dances", "is dancing", "waves both hands", "moves to the music", "turns around")
_PLACES = ("", " in a room", " on a stage", " on a street", " on a beach", " in the park", ", full body")
_LIGHTS: dict[str, tuple[str, ...]] = {
    "neutral": ("", "", ", high quality", ", detailed face", ", natural movement"),
    "warm": (", warm light", " in warm light"),
    "cold": (", cold light", " in cold light"),
    "red": (", red light", " in red light"),
    "green": (", green light", " in green light"),
    "purple": (", purple light", " in purple light"),
    "dark": (" at night", ", dark", " in the dark at night"),
}

CORPUS = "\n".join(
    [*_SUBJECTS, *_ACTIONS, *(place.strip(", ") for place in _PLACES)]
    + [phrase.strip(", ") for phrases in _LIGHTS.values() for phrase in phrases]
)
"""Words the tokenizer should know whole."""


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
    """A sentence that names the light, if it is not neutral."""

    def one_of(choices: tuple[str, ...]) -> str:
        return choices[int(g.integers(len(choices)))]

    return one_of(_SUBJECTS) + " " + one_of(_ACTIONS) + one_of(_PLACES) + one_of(_LIGHTS[light])
