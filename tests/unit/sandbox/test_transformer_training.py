"""Training calls the product's forward pass: what it feeds by other ways must give the same velocity."""

import numpy as np
import pytest
import torch

from libs.requests.documents.animation_request import DEFAULT_NEGATIVE_PROMPT
from libs.sandbox.phrases import CORPUS
from libs.sandbox.prompt_encoder import build_tokenizer
from libs.sandbox.training.data import LIGHT_NAMES
from libs.sandbox.training.forward import TrainingForward
from libs.sandbox.training.latents import pose_features
from libs.sandbox.training.prompts import TrainingPrompts, random_prompt
from libs.sandbox.training.transformer_start import ConstantChannels, starting_transformer, trainable

PROMPTS = ["a puppet dances in red light", "a cat waves both hands at night"]


@pytest.fixture(scope="module")
def transformer():
    """The start, with attention to text that is not silent."""
    model = starting_transformer()
    torch.manual_seed(0)
    for block in model.blocks:
        torch.nn.init.normal_(block.attn2.to_out[0].weight, std=0.05)
    return model


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("token_replace", [False, True])
def test_training_and_product_give_the_same_velocity(transformer, token_replace):
    prompts = TrainingPrompts()
    text = torch.zeros(2, 512, 64)
    for row, prompt in zip(text, PROMPTS, strict=True):
        embeddings = prompts.encode(prompt).embeddings
        row[: len(embeddings)] = embeddings
    latents, reference = random(2, 16, 3, 4, 4), random(2, 32, 1, 4, 4)
    poses, reference_pose = random(2, 3, 9, 32, 32).clamp(-1, 1), random(2, 3, 1, 32, 32).clamp(-1, 1)
    processors = [block.attn2.processor for block in transformer.blocks]
    with torch.no_grad():
        wanted = transformer(
            latents, torch.full((2,), 780.0), text, poses, reference, reference_pose, token_replace=token_replace
        ).sample
        without_pose = transformer(
            latents, torch.full((2,), 780.0), text, None, reference, None, 0.0, token_replace=token_replace
        ).sample
        features = (pose_features(transformer, reference_pose), pose_features(transformer, poses))
        forward = TrainingForward(transformer)
        rows = prompts.batch(PROMPTS)
        made = forward(latents, 0.78, rows, reference, *features, token_replace)
        made_without_pose = forward(latents, 0.78, rows, reference, None, None, token_replace)
    for block, processor in zip(transformer.blocks, processors, strict=True):
        block.attn2.processor = processor
    assert torch.allclose(made, wanted, atol=1e-4)
    assert torch.allclose(made_without_pose, without_pose, atol=1e-4)
    assert (wanted - without_pose).abs().max() > 0.1


def test_constants_stay_constant():
    model = starting_transformer()
    forward, constants = TrainingForward(model), ConstantChannels(model)
    poses = pose_features(model, torch.rand(1, 3, 5, 32, 32)), pose_features(model, torch.rand(1, 3, 1, 32, 32))
    text = TrainingPrompts().batch(PROMPTS[:1])
    forward(random(1, 16, 2, 4, 4), 0.5, text, random(1, 32, 1, 4, 4), poses[1], poses[0]).square().mean().backward()
    constants.keep()
    stream = slice(119, 127)
    assert not model.patch_embedding.weight.grad[stream].any() and not model.patch_embedding.bias.grad[stream].any()
    assert not model.blocks[2].ffn.net[2].weight.grad[stream].any()
    assert not model.blocks[2].attn1.to_q.weight.grad[:, stream].any()
    assert model.blocks[2].attn1.to_q.weight.grad.any()
    assert not any(name.startswith("input_hint_block.down_blocks.1") for name, _ in trainable(model))


def test_the_tokenizer_knows_every_word_of_the_light_whole():
    tokenizer = build_tokenizer()
    words = set(CORPUS.replace(",", " ").split())
    assert {"warm", "cold", "red", "green", "purple", "night", "dark", "light"} <= words
    assert [word for word in words if len(tokenizer.tokenize(word)) != 1] == []
    assert tokenizer.tokenize("a puppet dances, warm light") == ["▁a", "▁puppet", "▁dances", ",", "▁warm", "▁light"]


def test_prompts_name_the_light_and_no_other():
    g = np.random.default_rng(0)
    named = {"warm", "cold", "red", "green", "purple", "night", "dark"}
    for light in LIGHT_NAMES:
        for prompt in (random_prompt(g, light) for _ in range(40)):
            found = named & set(prompt.replace(",", " ").split())
            assert found <= ({"night", "dark"} if light == "dark" else {light})
            assert bool(found) == (light != "neutral")
    assert not named & set(DEFAULT_NEGATIVE_PROMPT.split())
