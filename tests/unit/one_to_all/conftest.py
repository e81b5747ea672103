"""A complete tiny repository: random weights, the real layout, the real classes; written once per session."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler
from safetensors.torch import save_file
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

from libs.model_repo.files.parameters import TensorInfo, is_quantized, scale_name
from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.model_repo.operations.quantize import quantize_weight
from libs.model_repo.variants import get_variant
from libs.one_to_all.engine import AnimationEngine
from libs.one_to_all.engine_cache import EngineCache
from libs.one_to_all.events import AnimationInputs
from libs.one_to_all.network import OneToAllTransformer3DModel
from libs.one_to_all.weights.fp8 import hold_weights_in_fp8
from libs.settings import Settings

VARIANT = "sandbox"


def layout_in(folder: Path) -> RepositoryLayout:
    settings = Settings(models_dir=folder / "models", data_dir=folder / "data", _env_file=None)
    return layout_of(VARIANT, settings)


def small_transformer(seed: int = 0, **changes: int) -> OneToAllTransformer3DModel:
    """Random weights, the tables and norms included, so that every parameter matters."""
    torch.manual_seed(seed)
    network = {**asdict(get_variant(VARIANT).network), **changes}
    transformer = OneToAllTransformer3DModel(**network).eval().requires_grad_(False)
    for name, parameter in transformer.named_parameters():
        if parameter.dim() == 1:
            parameter.copy_(torch.randn_like(parameter) * 0.1 + (1.0 if "norm" in name and "weight" in name else 0.0))
    return transformer


def in_fp8(transformer: OneToAllTransformer3DModel) -> OneToAllTransformer3DModel:
    """The same network with its linear weights in FP8, as loading an FP8 checkpoint makes it."""
    state = {}
    for name, tensor in transformer.state_dict().items():
        if is_quantized(name, tuple(tensor.shape)):
            state[name], state[scale_name(name)] = quantize_weight(tensor)
        else:
            state[name] = tensor
    spelling = {torch.float8_e4m3fn: "F8_E4M3", torch.float16: "F16", torch.float32: "F32"}
    hold_weights_in_fp8(
        transformer, {name: TensorInfo(spelling[one.dtype], tuple(one.shape)) for name, one in state.items()}
    )
    transformer.load_state_dict(state, assign=True)
    return transformer.requires_grad_(False)


@torch.no_grad()
def velocity(transformer: OneToAllTransformer3DModel) -> torch.Tensor:
    """Of one pass with text, pose and picture, in the network's dtype."""

    def random(*shape: int) -> torch.Tensor:
        numbers = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
        return numbers.to(transformer.scale_shift_table.dtype)

    return transformer(
        random(1, 16, 3, 4, 4),
        torch.tensor([500.0]),
        random(1, 7, transformer.config.text_dim),
        random(1, 3, 9, 32, 32),
        random(1, 32, 1, 4, 4),
        random(1, 3, 1, 32, 32),
    ).sample


def write_checkpoint(model: torch.nn.Module, root: Path, shards: int = 2) -> None:
    """The model's state dict as shards with an index."""
    root.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    names = sorted(state)
    weight_map = {}
    for number in range(shards):
        shard = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = names[number::shards]
        save_file({name: state[name] for name in part}, root / shard)
        weight_map |= dict.fromkeys(part, shard)
    (root / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _write_repository(layout: RepositoryLayout) -> None:
    write_checkpoint(small_transformer(), layout.root)
    torch.manual_seed(1)
    AutoencoderKLWan(base_dim=4, num_res_blocks=1).save_pretrained(layout.wan_part("vae"))
    UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, num_train_timesteps=1000
    ).save_pretrained(layout.wan_part("scheduler"))
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocabulary += [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz,."]
    tokenizer = T5Tokenizer(vocab=vocabulary, extra_ids=0, additional_special_tokens=[])
    tokenizer.save_pretrained(layout.wan_part("tokenizer"))
    config = UMT5Config(
        vocab_size=len(tokenizer),
        d_model=layout.variant.network.text_dim,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        tie_word_embeddings=False,
    )
    UMT5EncoderModel(config).save_pretrained(layout.wan_part("text_encoder"))


@pytest.fixture(name="small_transformer")
def small_transformer_maker() -> Callable[..., OneToAllTransformer3DModel]:
    return small_transformer


@pytest.fixture(name="in_fp8")
def in_fp8_maker() -> Callable[[OneToAllTransformer3DModel], OneToAllTransformer3DModel]:
    return in_fp8


@pytest.fixture(name="velocity")
def velocity_of() -> Callable[[OneToAllTransformer3DModel], torch.Tensor]:
    return velocity


@pytest.fixture(name="write_checkpoint")
def checkpoint_writer() -> Callable[..., None]:
    return write_checkpoint


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> RepositoryLayout:
    """Read only; a test that changes files takes ``own_repository``."""
    layout = layout_in(tmp_path_factory.mktemp("repository"))
    _write_repository(layout)
    return layout


@pytest.fixture(scope="session")
def fp8_repository(repository: RepositoryLayout, tmp_path_factory: pytest.TempPathFactory) -> RepositoryLayout:
    """The FP8 variant of ``repository``; read only."""
    root = tmp_path_factory.mktemp("fp8") / "model"
    write_checkpoint(in_fp8(small_transformer()), root)
    return RepositoryLayout(get_variant(f"{VARIANT}-fp8"), root, repository.pretrained, repository.wan)


@pytest.fixture
def own_repository(repository: RepositoryLayout, tmp_path: Path) -> RepositoryLayout:
    """A copy of the repository that a test may break."""
    shutil.copytree(repository.root, layout_in(tmp_path).root)
    return layout_in(tmp_path)


@pytest.fixture(scope="session")
def engine(repository: RepositoryLayout) -> AnimationEngine:
    return AnimationEngine.load(repository, "cpu")


@pytest.fixture
def cache() -> Iterator[EngineCache]:
    """An engine cache of this test, empty at first."""
    cache = EngineCache()
    yield cache
    cache.clear()


@pytest.fixture
def make_inputs() -> Callable[..., AnimationInputs]:
    def make(frame_count: int, height: int = 32, width: int = 32) -> AnimationInputs:
        generator = np.random.default_rng(5)

        def picture(*shape: int) -> np.ndarray:
            return generator.integers(0, 256, shape, dtype=np.uint8)

        poses = picture(frame_count, height, width, 3)
        return AnimationInputs(
            image=picture(height, width, 3),
            mask=picture(height, width),
            reference_pose=picture(height, width, 3),
            frame_count=frame_count,
            poses=lambda start, stop: poses[start:stop],
        )

    return make
