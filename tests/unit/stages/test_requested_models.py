"""What is known of a request's model files when it is submitted, on the machine where they lie and on one without."""

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from libs.errors import InputError
from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.requests.documents.animation_request import AnimationRequest
from libs.settings import Settings
from libs.stages.request.requested_models import VERIFICATION, model_warnings
from libs.storage.artifacts import ArtifactFiles, ArtifactStore
from libs.storage.backends.factory import store_from_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(models_dir=tmp_path / "models", data_dir=tmp_path / "data", _env_file=None)


@pytest.fixture
def store(settings: Settings) -> ArtifactStore:
    return store_from_settings(settings)


def _request(**fields: object) -> AnimationRequest:
    return AnimationRequest.model_validate({"id": "solo", "reference": "a.png", "driver": "a.mp4", **fields})


def _verified(store: ArtifactStore, folder: Path, variant: str) -> None:
    folder.mkdir()
    (folder / "report.json").write_text("{}")
    store.publish(VERIFICATION, variant, ArtifactFiles(folder))


def _folder(settings: Settings, variant: str) -> RepositoryLayout:
    layout = layout_of(variant, settings)
    layout.lora("x").parent.mkdir(parents=True)
    return layout


def test_a_machine_without_models_says_only_what_the_store_knows(settings, store, tmp_path):
    (warning,) = model_warnings([_request(model="14b", lora="look"), _request(model="14b")], settings, store)
    assert warning.startswith("14b was never verified: run the job prepare_models for partition '14b'")
    _verified(store, tmp_path / "report", "14b")
    assert model_warnings([_request(model="14b", lora="look")], settings, store) == []


def test_a_model_that_is_not_on_the_machine_of_others(settings, store, tmp_path):
    _folder(settings, "sandbox")
    for variant, command in (
        ("14b", "one-to-all models download 14b"),
        ("14b-fp8", "one-to-all models quantize 14b"),
    ):
        _verified(store, tmp_path / variant, variant)
        (warning,) = model_warnings([_request(model=variant), _request(model=variant)], settings, store)
        assert re.match(rf"{variant} is not on this machine \(.*{layout_of(variant, settings).root}\)", warning)
        assert f"`{command}`" in warning
        assert f"prepare_models for partition '{variant}'" in warning


def test_a_lora_that_is_not_there_or_does_not_fit(settings, store, tmp_path):
    layout = _folder(settings, "sandbox")
    _verified(store, tmp_path / "report", "sandbox")
    request = _request(model="sandbox", lora="look")
    save_file({"blocks.0.ffn.2.diff_b": np.ones(128, np.float32)}, layout.lora("other"))
    (warning,) = model_warnings([request], settings, store)
    assert warning == f"lora: {layout.lora('look')} is missing; put the file there, or name one of other"
    save_file({"blocks.0.ffn.2.diff_b": np.ones(128, np.float32)}, layout.lora("my look (1)"))
    assert model_warnings([request], settings, store) == [warning]  # no request can name that one
    (named,) = model_warnings([_request(model="sandbox", lora="other.safetensors")], settings, store)
    assert named == "lora: other.safetensors is named without its ending: write `lora: other`"
    assert model_warnings([_request(model="sandbox", lora="other")], settings, store) == []
    save_file({"blocks.0.ffn.2.diff_b": np.ones(5120, np.float32)}, layout.lora("look"))
    with pytest.raises(InputError, match=r"solo: lora: .*look\.safetensors: the bias .* does not fit \[128\]"):
        model_warnings([request], settings, store)
    save_file({"double_blocks.0.img_attn_qkv.lora_A.weight": np.ones((2, 2), np.float32)}, layout.lora("look"))
    with pytest.raises(InputError, match=r"matches no module of this network: double_blocks.*is for another model"):
        model_warnings([request], settings, store)
