"""Loading: strict, from memory-mapped shards, and with errors that name the file and the way out."""

import json
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from libs.errors import ModelFilesError
from libs.model_repo.variants import VARIANTS
from libs.one_to_all.engine import AnimationEngine
from libs.one_to_all.weights.loading import load_prompt_encoder, load_scheduler, load_transformer

CPU = torch.device("cpu")
MENDING = r"`one-to-all models download sandbox"


def _load(layout):
    return load_transformer(layout, CPU, torch.float32)


def _shard(layout, number=0):
    return sorted(layout.root.glob("*.safetensors"))[number]


def _rewrite(path, change):
    state = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(state)
    save_file(state, path)


def test_weights_arrive_exactly(repository, small_transformer):
    loaded, expected = _load(repository).state_dict(), small_transformer().state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_everything_is_in_the_dtype_asked_for(repository, dtype):
    engine = AnimationEngine.load(repository, "cpu", dtype)
    networks = engine.networks
    for network in (networks.transformer, networks.vae, networks.prompt_encoder.text_encoder):
        assert {parameter.dtype for parameter in network.parameters()} == {dtype}
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_single_file_is_a_checkpoint_too(own_repository, small_transformer):
    own_repository.index.unlink()
    for shard in own_repository.root.glob("*.safetensors"):
        shard.unlink()
    save_file(small_transformer(seed=3).state_dict(), own_repository.root / "model.safetensors")
    assert torch.equal(_load(own_repository).proj_out.weight, small_transformer(seed=3).proj_out.weight)


def test_a_missing_index_is_refused(own_repository):
    own_repository.index.unlink()
    with pytest.raises(ModelFilesError, match=rf"index\.json: is missing.*{MENDING}"):
        _load(own_repository)


def test_a_missing_shard_is_refused(own_repository):
    shard = _shard(own_repository, 1)
    shard.unlink()
    with pytest.raises(ModelFilesError, match=rf"{shard.name}: is missing.*{MENDING}"):
        _load(own_repository)


@pytest.mark.parametrize(
    ("parameter", "shard", "message"),
    [
        ("proj_out.bias", "model-00009-of-00009.safetensors", "model-00009-of-00009.*is missing"),
        ("proj_out.bias", "../elsewhere.safetensors", "not a plain file name"),
        ("proj_out.bias", None, "lacks 1 parameters of the model: proj_out.bias"),
        ("extra.weight", "model-00001-of-00002.safetensors", "does not have: extra.weight"),
    ],
    ids=["absent shard", "out of the folder", "missing parameter", "unknown parameter"],
)
def test_an_index_that_is_wrong(own_repository, parameter, shard, message):
    index = json.loads(own_repository.index.read_text())
    index["weight_map"][parameter] = shard
    index["weight_map"] = {name: file for name, file in index["weight_map"].items() if file}
    own_repository.index.write_text(json.dumps(index))
    with pytest.raises(ModelFilesError, match=rf"{message}.*{MENDING}"):
        _load(own_repository)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": 3}'])
def test_a_broken_index(own_repository, content):
    own_repository.index.write_text(content)
    with pytest.raises(ModelFilesError, match=rf"index\.json.*{MENDING}"):
        _load(own_repository)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state, name: state.update({"renamed": state.pop(name)}), "holds other parameters"),
        (lambda state, name: state.update({name: torch.zeros(3, 1)}), r"NAME has shape \[3, 1\]"),
        (lambda state, name: state.update({name: state[name].to(torch.int32)}), "NAME is torch.int32"),
    ],
    ids=["another name", "another shape", "whole numbers"],
)
def test_a_tensor_that_is_wrong(own_repository, change, message):
    shard = _shard(own_repository)
    name = next(iter(load_file(shard)))
    _rewrite(shard, lambda state: change(state, name))
    with pytest.raises(ModelFilesError, match=rf"{shard.name}: {message.replace('NAME', name)}.*{MENDING}"):
        _load(own_repository)


@pytest.mark.parametrize("kept", [0, 5, 500, -1])
def test_a_cut_off_shard(own_repository, kept):
    shard = _shard(own_repository)
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(ModelFilesError, match=rf"{shard.name}.*{MENDING}"):
        _load(own_repository)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(own_repository, value):
    shard = _shard(own_repository)
    name = max(load_file(shard).items(), key=lambda item: item[1].numel())[0]
    _rewrite(shard, lambda state: state[name].view(-1)[-1].fill_(value))
    with pytest.raises(ModelFilesError, match=rf"{shard.name}: {name} holds values that are not finite.*{MENDING}"):
        _load(own_repository)


@pytest.mark.parametrize("part", ["vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_wan_part(own_repository, part):
    shutil.rmtree(own_repository.wan_part(part))
    with pytest.raises(ModelFilesError, match=rf"{part}: the folder is missing.*{MENDING}"):
        AnimationEngine.load(own_repository, "cpu")


@pytest.mark.parametrize("part", ["vae", "text_encoder", "tokenizer", "scheduler"])
def test_an_empty_wan_part(own_repository, part):
    for file in own_repository.wan_part(part).iterdir():
        file.unlink()
    with pytest.raises(ModelFilesError, match=rf"{part}: .*{MENDING}"):
        AnimationEngine.load(own_repository, "cpu")


@pytest.mark.parametrize("part", ["vae", "text_encoder"])
def test_a_cut_off_wan_part(own_repository, part):
    (weights,) = own_repository.wan_part(part).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-7])
    with pytest.raises(ModelFilesError, match=rf"{part}: cannot be loaded.*{MENDING}"):
        AnimationEngine.load(own_repository, "cpu")


@pytest.mark.parametrize("part", ["vae", "text_encoder"])
def test_a_wan_part_that_lacks_a_parameter(own_repository, part):
    (weights,) = own_repository.wan_part(part).glob("*.safetensors")
    state = load_file(weights)
    removed = next(name for name in sorted(state) if "embed" not in name and "shared" not in name)
    del state[removed]
    save_file(state, weights, metadata={"format": "pt"})
    with pytest.raises(ModelFilesError, match=rf"{part}: .*lacks .*{removed}.*{MENDING}"):
        AnimationEngine.load(own_repository, "cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [("shared.weight", r"shared\.weight has shape \[2, 3\]"), ("decoder.weight", r"does not have: decoder\.weight")],
)
def test_a_text_encoder_of_another_kind(own_repository, name, message):
    (weights,) = own_repository.wan_part("text_encoder").glob("*.safetensors")
    _rewrite(weights, lambda state: state.update({name: torch.zeros(2, 3)}))
    with pytest.raises(ModelFilesError, match=rf"text_encoder: .*{message}.*{MENDING}"):
        load_prompt_encoder(own_repository, CPU, torch.float32)


@pytest.mark.parametrize("part", ["vae", "text_encoder"])
def test_a_wan_part_with_values_that_are_not_finite(own_repository, part):
    (weights,) = own_repository.wan_part(part).glob("*.safetensors")
    name = max(load_file(weights).items(), key=lambda item: item[1].numel())[0]
    state = load_file(weights)
    state[name].view(-1)[-1] = float("nan")
    weights.unlink()
    save_file(state, weights, metadata={"format": "pt"})
    with pytest.raises(ModelFilesError, match=rf"{part}: .* holds values that are not finite.*{MENDING}"):
        AnimationEngine.load(own_repository, "cpu")


def test_a_scheduler_of_another_model(own_repository):
    config = own_repository.wan_part("scheduler") / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_train_timesteps": 50}))
    with pytest.raises(ModelFilesError, match=rf"50 training steps, expected 1000.*{MENDING}"):
        load_scheduler(own_repository)


def test_the_repositorys_own_shift_does_not_matter(repository):
    assert json.loads((repository.wan_part("scheduler") / "scheduler_config.json").read_text())["flow_shift"] == 3.0
    assert load_scheduler(repository).shift == 7.0


@pytest.mark.parametrize("dropped", [None, "shared.weight", "encoder.embed_tokens.weight"])
def test_the_token_embedding_may_be_stored_once_or_twice(own_repository, dropped):
    expected = load_prompt_encoder(own_repository, CPU, torch.float32)
    (weights,) = own_repository.wan_part("text_encoder").glob("*.safetensors")
    state = load_file(weights)
    embedding = next(tensor for name, tensor in state.items() if "shared" in name or "embed_tokens" in name)
    state |= {"shared.weight": embedding.clone(), "encoder.embed_tokens.weight": embedding.clone()}
    state.pop(dropped, None)
    save_file(state, weights, metadata={"format": "pt"})
    encoder = load_prompt_encoder(own_repository, CPU, torch.float32)
    assert encoder.text_encoder.encoder.embed_tokens is encoder.text_encoder.shared, "moved once, counted once"
    pair = (one.encode("a dancer", CPU, torch.float32) for one in (encoder, expected))
    assert torch.equal(*pair)


def test_a_format_that_cannot_be_loaded(repository):
    layout = type(repository)(VARIANTS["sandbox-fp8"], repository.root, repository.pretrained, repository.wan)
    with pytest.raises(ModelFilesError, match=r"no weight in FP8.*quantize sandbox"):
        _load(layout)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (None, r"to_q\.weight is in FP8 and has no \S*to_q\.scale_weight, as other weights have"),
        (torch.ones(3), r"to_q\.scale_weight has shape \[3\]; expected one number, or one for each of the \d+ output"),
    ],
)
def test_a_scale_that_is_missing_or_does_not_fit(fp8_repository, tmp_path, scale, message):
    """The clip would be noise, or fail in its first step."""
    layout = replace(fp8_repository, root=tmp_path / "fp8")
    shutil.copytree(fp8_repository.root, layout.root)
    name = "blocks.0.attn1.to_q.scale_weight"
    index = json.loads(layout.index.read_text())

    def change(state):
        del state[name]
        if scale is not None:
            state[name] = scale

    _rewrite(layout.root / index["weight_map"][name], change)
    if scale is None:
        del index["weight_map"][name]
        layout.index.write_text(json.dumps(index))
    with pytest.raises(ModelFilesError, match=rf"fp8: .*{message}.*quantize sandbox"):
        _load(layout)


@pytest.mark.slow
@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_peak_memory_is_one_model(tmp_path, small_transformer, write_checkpoint, stored):
    """A checkpoint of a few hundred MB is loaded in a process of its own, whose peak resident memory is compared."""
    big = small_transformer(num_attention_heads=8, ffn_dim=2048).to(getattr(torch, stored))
    write_checkpoint(big, tmp_path / "model", shards=4)
    size = sum(parameter.numel() for parameter in big.parameters()) * 4
    assert size > 250e6
    program = textwrap.dedent(
        """
        import resource, sys, torch
        from pathlib import Path
        from libs.one_to_all.weights.checkpoint import assign_checkpoint
        from libs.one_to_all.network import OneToAllTransformer3DModel
        import dataclasses
        from libs.model_repo.variants import get_variant
        network = dataclasses.replace(get_variant("sandbox").network, num_attention_heads=8, ffn_dim=2048)
        with torch.device("meta"):
            model = OneToAllTransformer3DModel(**dataclasses.asdict(network))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assign_checkpoint(model, Path(sys.argv[1]), torch.device("cpu"), torch.float32, "mend")
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
        """
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "model")], capture_output=True, text=True, check=True
    )
    # the model, and beside it at most the shard being read
    shard = max(path.stat().st_size for path in (tmp_path / "model").glob("*.safetensors"))
    assert int(result.stdout) < size + shard + 30e6
