"""A small repository in the real layout, written once per session and copied for each test."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from libs.model_repo.files.parameters import expected_parameters
from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.settings import Settings


def settings_in(folder: Path) -> Settings:
    """Settings that see nothing but ``folder``."""
    return Settings(models_dir=folder / "models", data_dir=folder / "data", _env_file=None)


def write_checkpoint(layout: RepositoryLayout, seed: int = 0) -> None:
    """Two shards of random float16 weights and their index."""
    layout.root.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    tensors = {
        name: (generator.standard_normal(shape, dtype=np.float32) * 0.05).astype(np.float16)
        for name, shape in expected_parameters(layout.variant.network).items()
    }
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        shard = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, layout.root / shard)
        weight_map |= dict.fromkeys(part, shard)
    layout.index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (layout.root / "configuration.json").write_text('{"framework": "pytorch"}')


def write_graph(path: Path, inputs: list[int], outputs: list[int], *, external: bool = False) -> None:
    """An ONNX graph with these shapes that adds up its input, with a weight large enough to be external."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weight = onnx.numpy_helper.from_array(np.full(outputs, 0.5, np.float32), "weight")
    nodes = [
        helper.make_node("ReduceSum", ["input"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "weight"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, inputs)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, outputs)],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save_model(model, str(path), save_as_external_data=external, location="weights.bin")


def write_pose_models(layout: RepositoryLayout) -> None:
    write_graph(layout.detector, [1, 3, 640, 640], [1, 300, 6])
    write_graph(layout.pose_estimator, [1, 3, 256, 192], [1, 133, 64, 48])
    write_graph(layout.dwpose / "dw.onnx", [1, 3, 384, 288], [1, 133, 576])


def write_wan_resources(layout: RepositoryLayout) -> None:
    import torch
    from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    AutoencoderKLWan(base_dim=4, z_dim=16, num_res_blocks=1).save_pretrained(layout.wan_part("vae"))
    width = layout.variant.network.text_dim
    config = UMT5Config(
        vocab_size=32, d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    UMT5EncoderModel(config).save_pretrained(layout.wan_part("text_encoder"))
    words = {word: index for index, word in enumerate(("<pad>", "<unk>", "A", "person", "dances"))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>").save_pretrained(
        layout.wan_part("tokenizer")
    )
    FlowMatchEulerDiscreteScheduler(shift=7.0).save_pretrained(layout.wan_part("scheduler"))


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> RepositoryLayout:
    layout = layout_of("sandbox", settings_in(tmp_path_factory.mktemp("pristine")))
    write_checkpoint(layout)
    write_pose_models(layout)
    write_wan_resources(layout)
    return layout


@pytest.fixture
def repository(pristine: RepositoryLayout, tmp_path: Path) -> Iterator[RepositoryLayout]:
    """A private, complete and unlocked copy of the sandbox-sized repository."""
    layout = layout_of("sandbox", settings_in(tmp_path))
    shutil.copytree(pristine.root, layout.root)
    yield layout


@pytest.fixture
def graph_writer() -> Callable[..., None]:
    """:func:`write_graph`; test modules cannot import this file."""
    return write_graph
