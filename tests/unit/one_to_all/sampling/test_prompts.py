"""Encoding prompts with a real tokenizer and text encoder."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import UMT5Config, UMT5EncoderModel

from libs.one_to_all.sampling.prompts import MAX_SEQUENCE_LENGTH, PromptEncoder, clean_prompt
from libs.one_to_all.weights.loading import load_prompt_encoder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def prompt_encoder(repository):
    return load_prompt_encoder(repository, CPU, torch.float32)


def _encode(prompt_encoder, prompt):
    return prompt_encoder.encode(prompt, CPU, torch.float32)


@pytest.mark.parametrize("prompt", ["", "abc", "a dancer in a red suit"])
def test_embeddings_after_the_end_of_the_prompt_are_zero(prompt_encoder, repository, prompt):
    embeddings = _encode(prompt_encoder, prompt)
    assert embeddings.shape == (1, MAX_SEQUENCE_LENGTH, repository.variant.network.text_dim)
    tokens = prompt_encoder.tokenizer(prompt).input_ids
    assert tokens[-1] == prompt_encoder.tokenizer.eos_token_id
    used = len(tokens)
    assert (embeddings[:, :used].abs().sum(-1) > 0).all()
    assert not embeddings[:, used:].any()


def test_embeddings_equal_the_output_of_the_encoder(prompt_encoder):
    tokens = prompt_encoder.tokenizer(["a dancer"], return_tensors="pt")
    expected = prompt_encoder.text_encoder(tokens.input_ids).last_hidden_state
    actual = _encode(prompt_encoder, "a dancer")[:, : expected.shape[1]]
    assert (actual - expected).abs().max() < 1e-5


def test_long_prompts_are_cut(prompt_encoder):
    embeddings = _encode(prompt_encoder, "abc " * 2000)
    assert embeddings.shape[1] == MAX_SEQUENCE_LENGTH
    assert (embeddings.abs().sum(-1) > 0).all()


def test_prompts_are_encoded_once(prompt_encoder, monkeypatch):
    first = _encode(prompt_encoder, "once &amp; only")
    monkeypatch.setattr(prompt_encoder, "text_encoder", None)
    assert torch.equal(_encode(prompt_encoder, "  once & only "), first)


def test_the_sixteen_prompts_used_last_are_kept(prompt_encoder):
    calls = []
    hook = prompt_encoder.text_encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    prompts = ["a" * (number + 1) for number in range(20)]
    for prompt in prompts:
        _encode(prompt_encoder, prompt)
        _encode(prompt_encoder, "the negative one")
    assert len(calls) == len(prompts) + 1
    for prompt in [*prompts[-15:], "the negative one"]:
        _encode(prompt_encoder, prompt)
    assert len(calls) == len(prompts) + 1
    _encode(prompt_encoder, prompts[-16])
    assert len(calls) == len(prompts) + 2
    hook.remove()


class Reloaded(BaseException):
    pass


def test_the_text_encoder_computes_on_the_device_it_was_moved_to():
    def reload(device):
        raise Reloaded(device)

    sizes = UMT5Config(vocab_size=30, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    encoder = PromptEncoder(None, UMT5EncoderModel(sizes), reload=reload)
    encoder.move_to(torch.device("meta"))
    assert encoder.text_encoder.device.type == "meta"
    encoder.drop_text_encoder()
    with pytest.raises(Reloaded, match="meta"):
        _encode(encoder, "a dancer")
    encoder.move_to(CPU)
    with pytest.raises(Reloaded, match="cpu"):
        _encode(encoder, "a dancer")


def test_entities_written_twice_are_repaired():
    assert clean_prompt("a < b &amp;gt; c") == "a < b > c"


@given(st.text(max_size=80))
def test_cleaning_leaves_single_spaces(prompt):
    cleaned = clean_prompt(prompt)
    assert cleaned == cleaned.strip()
    assert "  " not in cleaned
    assert not any(mark in cleaned for mark in "\n\t\r")
