"""Requests for another quality or with a LoRA: the clip is made again, poses are not, and the record says so."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from libs.model_repo.layout import layout_of
from libs.one_to_all.sampling.approximation import QUALITIES
from libs.provenance.clip_tag import read_origin
from libs.provenance.trace import LinkState, trace_request
from libs.settings import Settings
from tests.integration.orchestration.small_requests import clip_of, submit_small, write_small_media


def write_lora(path: Path, value: float) -> Path:
    path.parent.mkdir(exist_ok=True)
    # the sandbox network is 128 wide
    save_file({"diffusion_model.blocks.1.cross_attn.o.diff": torch.full((128, 128), value)}, path)
    return path


@pytest.mark.slow
def test_the_clip_is_made_again_and_poses_are_not(world: Any, tmp_path: Path) -> None:
    media = write_small_media(tmp_path / "media", 6)
    layout = layout_of("sandbox", Settings(models_dir=world.models_dir, data_dir=world.data_dir, _env_file=None))

    def animated(**fields: Any) -> Any:
        submit_small(world, media, "puppet", steps=2, **fields)
        assert world.animate("puppet", review=False).success
        return world.artifact("animation", "puppet")

    def poses() -> list[str]:
        return [world.store.manifest(asset, "puppet").digest for asset in ("pose_tracks", "pose_conditioning")]

    exact = animated()
    made = poses()
    draft = animated(quality="draft")
    assert poses() == made
    assert draft.manifest.file("clip.mp4").sha256 != exact.manifest.file("clip.mp4").sha256
    origin = read_origin(draft.path("clip.mp4"))
    assert origin.resolved_request().quality == "draft"
    assert origin.engine["approximation"] == asdict(QUALITIES["draft"])

    # A LoRA that is not there stops a request before anything is made for it.
    submit_small(world, media, "puppet", steps=2, lora="distilled")
    assert not world.animate("puppet", raise_on_error=False).success
    assert world.artifact("animation", "puppet").manifest.digest == draft.manifest.digest

    path = write_lora(layout.lora("distilled"), 0.01)
    with_lora = animated(lora="distilled")
    assert poses() == made
    clip = with_lora.manifest.file("clip.mp4").sha256
    assert clip not in {made.manifest.file("clip.mp4").sha256 for made in (exact, draft)}
    frames = clip_of(world, "puppet")
    found = trace_request("puppet", world.store, Settings(models_dir=world.models_dir, _env_file=None))
    assert not found.out_of_date
    assert "LoRA distilled" in {link.what for link in found.links}
    write_lora(path, 0.02)
    found = trace_request("puppet", world.store, Settings(models_dir=world.models_dir, _env_file=None))
    assert [(link.what, link.state) for link in found.out_of_date] == [("LoRA distilled", LinkState.CHANGED)]
    assert animated(lora="distilled", lora_strength=0.5).manifest.file("clip.mp4").sha256 != clip
    assert (clip_of(world, "puppet") == frames).all()  # half of what is twice as strong
    path.unlink()

    # Exact is what it was before, to the byte of the file.
    assert animated().manifest.file("clip.mp4").sha256 == exact.manifest.file("clip.mp4").sha256
