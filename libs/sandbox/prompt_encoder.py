"""A tiny UMT5 text encoder and a T5 tokenizer whose vocabulary is counted from a few phrases.

Both are transformers' own classes; the encoder's weights are random. The vocabulary keeps the original's special ids
(padding 0, end 1, unknown 2). See ``libs.one_to_all.sampling.prompts`` for cleaning and encoding prompts.
"""

import math
import string
from collections import Counter

import torch
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

from libs.sandbox.phrases import CORPUS

_SPACE = "▁"  # how SentencePiece writes the space before a word
_SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")
_MAXIMUM_LENGTH = 512


def build_tokenizer() -> T5Tokenizer:
    """A Unigram tokenizer: characters, frequent word beginnings and whole words, scored by their logarithmic counts."""
    words = [_SPACE + word for word in CORPUS.replace(",", " ,").split()]
    pieces: Counter[str] = Counter()
    for word in words:
        for start in range(len(word)):
            for stop in range(start + 1, len(word) + 1):
                pieces[word[start:stop]] += 1
    alphabet = [_SPACE, *string.ascii_letters, *string.digits, *string.punctuation]
    frequent = [piece for piece, count in pieces.items() if len(piece) > 1 and (count >= 4 or piece in words)]
    total = sum(pieces.values())
    vocabulary = [(token, 0.0) for token in _SPECIAL_TOKENS]
    vocabulary += [
        (piece, math.log(max(pieces[piece], 0.5) / total))
        for piece in [*alphabet, *sorted(frequent, key=lambda piece: (-pieces[piece], piece))]
    ]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, additional_special_tokens=[], model_max_length=_MAXIMUM_LENGTH)


def build_text_encoder(vocabulary_size: int, width: int, generator: torch.Generator) -> UMT5EncoderModel:
    """Two layers of width ``width`` in float32, random but about unit variance at the output."""
    config = UMT5Config(
        vocab_size=vocabulary_size,
        d_model=width,
        d_kv=16,
        d_ff=2 * width,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        architectures=["UMT5EncoderModel"],
    )
    encoder = UMT5EncoderModel(config).eval().requires_grad_(False)
    for name, parameter in encoder.named_parameters():
        if parameter.dim() == 1:
            parameter.fill_(1.0)
        else:
            spread = 1.0 if "embed" in name or "shared" in name else 1.0 / math.sqrt(parameter.shape[-1])
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return encoder
