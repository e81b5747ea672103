"""The sandbox's FP8 variant in the engine's loader: memory of the weights, and error against the plain ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.model_repo.operations.quantize import quantize_checkpoint
from libs.model_repo.verification.lock import lock_repository
from libs.one_to_all.network import OneToAllTransformer3DModel
from libs.one_to_all.weights.fp8 import Fp8Linear
from libs.one_to_all.weights.loading import load_transformer
from libs.sandbox.repository import write_sandbox_repository
from libs.settings import Settings


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RepositoryLayout, RepositoryLayout]]:
    """(plain, FP8)"""
    folder = tmp_path_factory.mktemp("fp8")
    settings = Settings(models_dir=folder, data_dir=folder, _env_file=None)
    plain, fp8 = layout_of("sandbox", settings), layout_of("sandbox-fp8", settings)
    write_sandbox_repository(plain)
    lock_repository(plain)
    quantize_checkpoint(plain, fp8)
    yield plain, fp8


def _bytes_of_linear_layers(model: torch.nn.Module) -> int:
    return sum(
        parameter.numel() * parameter.element_size()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "condition_embedder" not in name
        for parameter in module.parameters(recurse=False)
    )


@torch.inference_mode()
def _velocity(model: OneToAllTransformer3DModel, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    return model(
        hidden_states=draw(1, 16, 3, 8, 8),
        timestep=torch.tensor([700.0]),
        encoder_hidden_states=draw(1, 8, model.config["text_dim"]),
        controlnet_cond=draw(1, 3, 9, 64, 64),
        image_latents=draw(1, 32, 1, 8, 8),
        image_pose=draw(1, 3, 1, 64, 64),
        return_dict=False,
    )[0].float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_stay_in_fp8_and_the_velocity_is_close(
    layouts: tuple[RepositoryLayout, RepositoryLayout], dtype: torch.dtype
) -> None:
    device = torch.device("cpu")
    plain, fp8 = (load_transformer(layout, device, dtype) for layout in layouts)
    assert sum(isinstance(module, Fp8Linear) for module in fp8.modules()) > 50
    assert fp8.dtype == dtype
    ratio = _bytes_of_linear_layers(fp8) / _bytes_of_linear_layers(plain)
    assert ratio < {torch.float32: 0.27, torch.bfloat16: 0.53}[dtype]
    before, after = _velocity(plain, dtype), _velocity(fp8, dtype)
    assert torch.isfinite(after).all()
    assert 0 < (after - before).norm() / before.norm() < 0.1


def test_a_nan_in_an_fp8_shard_is_found_when_loading(
    layouts: tuple[RepositoryLayout, RepositoryLayout], tmp_path: Path
) -> None:
    import shutil

    from libs.errors import ModelFilesError

    _, fp8 = layouts
    root = tmp_path / fp8.root.name
    shutil.copytree(fp8.root, root)
    layout = RepositoryLayout(fp8.variant, root, root / "pretrained_models", root / "pretrained_models" / fp8.wan.name)
    shard = sorted(root.glob("*.safetensors"))[0]
    content = bytearray(shard.read_bytes())
    half = len(content) // 2
    content[half:] = b"\xff" * (len(content) - half)
    shard.write_bytes(content)
    with pytest.raises(ModelFilesError, match="not finite"):
        load_transformer(layout, torch.device("cpu"), torch.float32)
