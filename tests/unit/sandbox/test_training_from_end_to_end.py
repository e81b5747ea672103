"""All training commands in their order, on two clips and with two steps each."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from libs.errors import ModelFilesError
from libs.sandbox.trained import kept_networks, kept_weights
from libs.sandbox.training import store
from libs.sandbox.training.autoencoder import AutoencoderTraining, train_autoencoder
from libs.sandbox.training.data import UPRIGHT, Clips, Shape, make_shards
from libs.sandbox.training.decoder import DecoderTraining, train_decoder
from libs.sandbox.training.latents import Latents, encode_shards, statistics
from libs.sandbox.training.painted import paint_shards
from libs.sandbox.training.sheet import write_sheet
from libs.sandbox.training.transformer import TransformerTraining, train_transformer
from libs.sandbox.training.transformer_start import starting_transformer


@pytest.mark.slow
def test_from_data_to_a_contact_sheet_and_kept_weights(tmp_path):
    data = tmp_path / "data"
    for split in ("training", "held_back"):
        assert len(list(make_shards(data, split, replace(UPRIGHT, clips=2), 1))) == 1
    threads = torch.get_num_threads()
    try:
        train_autoencoder(data, tmp_path, AutoencoderTraining(steps=2, save_every=2))
        autoencoder = store.trained_autoencoder(tmp_path)
        names = list(encode_shards(data, tmp_path / "latents", autoencoder, starting_transformer()))
        train_transformer(tmp_path, autoencoder, TransformerTraining(steps=2, save_every=2, batch=2))
        figures = write_sheet(data, tmp_path, autoencoder, tmp_path / "sheet.png", count=2)
        painted = paint_shards(tmp_path, "held_back", autoencoder, store.average_of(tmp_path, "transformer"), 5)
        train_decoder(data, tmp_path, autoencoder, DecoderTraining(steps=2, save_every=2, batch=2, painted_share=1.0))
    finally:
        torch.set_num_threads(threads)

    latents = Latents.load(names[-1])
    assert latents.clip.shape == (2, 16, 3, 20, 16) and latents.poses.shape == (2, 16, 5, 40, 32)
    assert latents.reference.shape == (2, 32, 1, 20, 16) and latents.reference_pose.shape == (2, 16, 1, 40, 32)
    assert figures["psnr_autoencoder"] > 18  # constructed, and two steps
    assert np.isfinite(list(figures.values())).all()
    ((name, one),) = painted.items()
    assert name == f"held_back-{UPRIGHT.name}-000" and list(one.rows) == [0, 1]
    assert one.latents.shape == (2, 16, 3, 20, 16) and torch.isfinite(one.latents).all()
    last = json.loads((tmp_path / "decoder.jsonl").read_text().splitlines()[-1])
    assert "loss_painted" in last and "loss" not in last, "the decoder learns from what the transformer paints"
    assert last["sharpness_painted"] > 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (11 * 128 * 3 // 2, 2 * 160 * 3 // 2)

    kept = tmp_path / "weights"
    for name in ("autoencoder", "decoder", "transformer"):
        store.keep_weights(tmp_path, kept, name, f"python -m libs.sandbox.training {name}", finished=False)
    lock = kept_networks(kept)
    assert set(lock) == {"decoder", "transformer"} == {path.stem for path in kept.glob("*.safetensors")}
    assert lock["decoder"]["steps"] == 2 and not lock["decoder"]["finished"]
    weights = kept_weights(kept, "decoder")
    average = store.average_of(tmp_path, "decoder")
    assert all(torch.equal(weights[name], value.bfloat16().float()) for name, value in average.items())
    encoder = [name for name in average if name.startswith("encoder")]
    before = store.average_of(tmp_path, "autoencoder")
    assert all(torch.equal(average[name], before[name]) for name in encoder)
    _, std = statistics(latents.clip)
    assert np.allclose(lock["transformer"]["latents"]["std"], std, rtol=0.3)
    (kept / "decoder.safetensors").write_bytes(b"else")
    with pytest.raises(ModelFilesError, match="differs from what"):
        kept_weights(kept, "decoder")


def test_clips_that_are_missing_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="training data"):
        train_autoencoder(tmp_path / "data", tmp_path, AutoencoderTraining(steps=1))
    with pytest.raises(FileNotFoundError, match="training transformer"):
        store.average_of(tmp_path, "transformer")


def test_a_shard_that_is_there_is_not_made_again(tmp_path):
    (path,) = make_shards(tmp_path, "held_back", Shape(64, 64, 1, 1), 1)
    stamp = path.stat().st_mtime_ns
    assert list(make_shards(tmp_path, "held_back", Shape(64, 64, 1, 1), 1)) == [path]
    assert path.stat().st_mtime_ns == stamp
    assert Clips.load(path).frames.shape == (1, 2, 64, 64, 3)
