"""Prompts longer than the text encoder reads are noticed, with the place where they are cut."""

from pathlib import Path

import pytest

from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.requests.documents.animation_request import AnimationRequest
from libs.settings import Settings
from libs.stages.request.prompt_length import PromptRuler, prompt_metadata, prompt_warnings

SENTENCE = "a knight in armour dances in a candle lit hall with stone walls and warm light "


def request(**fields: str) -> AnimationRequest:
    return AnimationRequest(**{"id": "a", "reference": "r.png", "driver": "d.mp4", "model": "sandbox", **fields})  # type: ignore[arg-type]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(models_dir=tmp_path / "models", data_dir=tmp_path / "data")  # type: ignore[call-arg]


@pytest.fixture
def layout(settings: Settings) -> RepositoryLayout:
    from libs.sandbox.prompt_encoder import build_tokenizer

    layout = layout_of("sandbox", settings)
    build_tokenizer().save_pretrained(layout.wan_part("tokenizer"))
    return layout


@pytest.mark.parametrize("prompt", ["", "a knight", SENTENCE * 60, "騎士" * 400, "\ufdfa" * 150, "ä &amp; ö  " * 90])
def test_tokens_are_counted_and_cut_as_the_encoder_does(layout: RepositoryLayout, prompt: str) -> None:
    from transformers import AutoTokenizer

    from libs.one_to_all.sampling.prompts import clean_prompt

    tokenizer = AutoTokenizer.from_pretrained(layout.wan_part("tokenizer"), local_files_only=True)
    cleaned = clean_prompt(prompt)
    length = PromptRuler(layout).measure("prompt", prompt, always_count=True)
    assert length is not None
    assert length.tokens == len(tokenizer(cleaned).input_ids)
    read = tokenizer(cleaned, truncation=True, max_length=512).input_ids
    if length.is_cut:
        assert cleaned.startswith(length.kept) and len(length.kept) < len(cleaned)
        assert tokenizer(length.kept).input_ids[:511] == read[:511]
        assert PromptRuler(layout).measure("prompt", prompt) == length
    else:
        assert len(read) == length.tokens


def test_a_long_prompt_is_warned_about_once_with_where_it_is_cut(layout: RepositoryLayout, settings: Settings) -> None:
    long, other = SENTENCE * 55 + "the first end", SENTENCE * 55 + "the second end"
    requests = [request(id="a", prompt=long), request(id="b", prompt=long), request(id="c", negative_prompt=other)]
    warnings = prompt_warnings([*requests, request(id="d", prompt="short")], settings)
    assert [warning.partition(" of ")[0] for warning in warnings] == ["a: prompt: 512", "c: negative_prompt: 512"]
    assert "512 of 512 tokens used; it has " in warnings[0]
    assert "is cut after “…" in warnings[0]
    assert "the first end" not in warnings[0]


def test_without_the_tokenizer_an_estimate_says_that_it_is_one(settings: Settings) -> None:
    (warning,) = prompt_warnings([request(prompt=SENTENCE * 55), request(prompt="short")], settings)
    assert warning.startswith(
        "a: prompt: has about 1086 tokens, of which 512 are read; the model's tokenizer is not on"
    )
    assert prompt_metadata(request(prompt=SENTENCE * 55), layout_of("sandbox", settings))["length of the prompt"]
    assert prompt_warnings([request(prompt=SENTENCE * 20)], settings) == []


def test_the_metadata_say_how_much_is_used(layout: RepositoryLayout) -> None:
    metadata = prompt_metadata(request(prompt="a knight", negative_prompt=SENTENCE * 55), layout)
    assert metadata["length of the prompt"].endswith(" of 512 tokens used")
    assert metadata["length of the negative_prompt"].startswith("512 of 512 tokens used; it has ")


def test_a_damaged_tokenizer_is_named_and_stops_nothing(layout: RepositoryLayout, settings: Settings) -> None:
    (layout.wan_part("tokenizer") / "tokenizer.json").write_text("[]")
    (warning,) = prompt_warnings([request(prompt=SENTENCE * 55)], settings)
    assert "tokenizer.json: is not a tokenizer" in warning
    assert prompt_metadata(request(prompt="a"), layout) == {}
