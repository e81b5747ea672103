"""What the tests of parallel engines share: options of a short clip, and a repository with the sizes of the 14B."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.variants import VARIANTS
from libs.one_to_all.memory.plan import UMT5_XXL_BYTES, WAN_VAE_BYTES
from libs.one_to_all.options import SamplingOptions
from libs.one_to_all.parallel import ranks
from libs.one_to_all.sampling.chunk_plan import ChunkLengths
from tests.waiting import HANG_SECONDS


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real ranks of a busy machine take a while to leave a chunk."""
    monkeypatch.setattr(ranks, "STOP_SECONDS", HANG_SECONDS)


@pytest.fixture(scope="session")
def make_options() -> Callable[..., SamplingOptions]:
    def make(**changes: object) -> SamplingOptions:
        fields: dict[str, object] = {
            "prompt": "a dancer",
            "negative_prompt": "blurred",
            "num_inference_steps": 2,
            "image_guidance_scale": 2.0,
            "pose_guidance_scale": 1.5,
            "chunk_lengths": ChunkLengths(main=13, overlap=5, final=(9, 13)),
        }
        return SamplingOptions(**{**fields, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture
def layout_14b(tmp_path: Path) -> RepositoryLayout:
    """The 14B with an FP8 repository beside it; text encoder and VAE have their real sizes and no content."""
    variant, fp8 = VARIANTS["14b"], tmp_path / VARIANTS["14b-fp8"].folder
    fp8.mkdir()
    (fp8 / "model.safetensors.index.json").write_text("{}")
    root = tmp_path / variant.folder
    layout = RepositoryLayout(
        variant, root, root / "pretrained_models", root / "pretrained_models" / variant.wan_folder
    )
    for part, byte_count in (("text_encoder", UMT5_XXL_BYTES), ("vae", WAN_VAE_BYTES)):
        path = layout.wan_part(part) / "model.safetensors"
        path.parent.mkdir(parents=True)
        path.touch()
        os.truncate(path, byte_count)
    return layout
