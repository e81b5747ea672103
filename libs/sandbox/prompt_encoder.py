"""A tiny UMT5 text encoder and a T5 tokenizer whose vocabulary is counted from a few prompts.

Both are transformers' own classes; the encoder's weights are random. The vocabulary keeps the original's special ids
(padding 0, end 1, unknown 2). What does not belong here: cleaning prompts and encoding them
(``libs.one_to_all.sampling.prompts``).
"""

import math
import string
from collections import Counter

import torch
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

_SPACE = "▁"  # how SentencePiece writes the space before a word
_SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")
_MAXIMUM_LENGTH = 512
_CORPUS = """
a clown in a vibrant red suit, dancing joyfully on a street
a person in a grey suit with coloured markers dancing in a bright studio, soft light, full body
a woman in a long dress walks along a beach at sunset, slow motion, cinematic, high quality
a man plays the guitar on a stage, warm colours, realistic, detailed face, natural movement
a child with headphones waves both hands, cartoon style, cream pullover, smiling, looking at the camera
the camera is still, the background stays the same, the character keeps its clothes and its face
black background, aerial view, overexposed, low quality, deformation, a poor composition, bad hands, bad teeth,
bad eyes, bad limbs, distortion
"""


def build_tokenizer() -> T5Tokenizer:
    """A Unigram tokenizer: characters, frequent word beginnings and whole words, scored by their logarithmic counts."""
    words = [_SPACE + word for word in _CORPUS.replace(",", " ,").split()]
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
