"""The local hub with a model in the real layout, and the real clients pointed at it."""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# test modules are imported by file, so the module they share is made importable here
sys.path.insert(0, str(Path(__file__).resolve().parent))

from local_hub import LocalHub

from libs.model_repo.hubs.hub import Hub, open_hub
from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.model_repo.variants import DWPOSE_SOURCE, POSE_NETWORKS_SOURCE, get_variant
from libs.settings import Settings


def _bytes(seed: str, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def checkpoint_files(seed: str = "") -> dict[str, bytes]:
    """A checkpoint in the real layout; a download does not look into shards, so they are noise."""
    shards = {f"model-{number:05d}-of-00002.safetensors": _bytes(f"{seed}{number}", 700_000) for number in (1, 2)}
    index = {"weight_map": {f"tensor{number}": shard for number, shard in enumerate(shards)}}
    return {
        "configuration.json": b'{"framework": "pytorch"}',
        "model.safetensors.index.json": json.dumps(index).encode(),
        "README.md": b"not needed",
        "assets/teaser.mp4": _bytes("teaser", 5000),
        **shards,
    }


@pytest.fixture
def hub_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_ENDPOINT", "MODELSCOPE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    # the client asks several times with growing pauses; fewer times are enough to see that it does
    monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_RETRY_TIMES", 1)
    monkeypatch.setattr("modelscope_hub._legacy_api.REPO_TREE_PAGE_MAX_ATTEMPTS", 2)
    with LocalHub() as server:
        variant = get_variant("1.3b_1")
        assert variant.checkpoint and variant.wan
        server.add(variant.checkpoint.repo_id, checkpoint_files())
        server.add("MochunniaN1/One-to-All-1.3b_2", checkpoint_files("second"))
        server.add(
            variant.wan.repo_id,
            {
                "vae/config.json": b"{}",
                "vae/diffusion_pytorch_model.safetensors": _bytes("vae", 50_000),
                "text_encoder/model.safetensors": _bytes("text", 80_000),
                "tokenizer/tokenizer.json": b'{"version": "1.0"}',
                "scheduler/scheduler_config.json": b"{}",
                "transformer/diffusion_pytorch_model.safetensors": _bytes("base", 90_000),
                "model_index.json": b"{}",
            },
        )
        server.add(DWPOSE_SOURCE.repo_id, {"DWPose/dw.onnx": _bytes("dw", 20_000), "other.bin": b"not needed"})
        folder = "process_checkpoint/pose2d/vitpose_h_wholebody.onnx"
        server.add(
            POSE_NETWORKS_SOURCE.repo_id,
            {
                "process_checkpoint/det/yolov10m.onnx": _bytes("detector", 30_000),
                f"{folder}/end2end.onnx": _bytes("pose", 40_000),
                f"{folder}/weights.bin": _bytes("weights", 60_000),
                "process_checkpoint/sam2/other.pt": b"not needed",
            },
        )
        yield server


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(models_dir=tmp_path / "models", data_dir=tmp_path / "data", _env_file=None)


@pytest.fixture
def layout(settings: Settings) -> RepositoryLayout:
    return layout_of("1.3b_1", settings)


@pytest.fixture(params=["modelscope", "huggingface"])
def hub(request: pytest.FixtureRequest, hub_server: LocalHub, settings: Settings) -> Hub:
    """Either real client."""
    update = {"model_hub": request.param, "model_hub_endpoint": hub_server.url}
    return open_hub(settings.model_copy(update=update))
