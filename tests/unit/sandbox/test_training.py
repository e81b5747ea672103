"""The training's parts: the folded autoencoder equals the real one, runs resume, Muon's steps are orthogonal."""

import pytest
import torch

from libs.sandbox.training import folded
from libs.sandbox.training.autoencoder_start import starting_autoencoder
from libs.sandbox.training.data import make_clip
from libs.sandbox.training.losses import psnr
from libs.sandbox.training.muon import Muon, orthogonal
from libs.sandbox.training.runs import Run, Schedule


@pytest.fixture(scope="module")
def autoencoder():
    """The start, with noise in every weight that training moves."""
    network = starting_autoencoder().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    coarsest = ("mid_block", "down_blocks.4", "up_blocks.0.resnets", "encoder.conv_out", "decoder.conv_in", "time_conv")
    for name, parameter in network.named_parameters():
        noise = 0.03 * parameter.std().nan_to_num(0.0) * torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 5 and parameter.shape[2] == 3 and not any(part in name for part in coarsest):
            noise[:, :, :-1] = 0.0  # older taps at full and half resolution stay zero
        parameter.add_(noise)
    return network


def test_the_folded_autoencoder_is_the_real_one(autoencoder):
    video = torch.rand(2, 3, 9, 24, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latents = folded.encode(autoencoder, video)
        assert torch.allclose(latents, autoencoder.encode(video).latent_dist.mode(), atol=1e-4)
        decoded = autoencoder.decode(latents, return_dict=False)[0]
        assert torch.allclose(folded.decode(autoencoder, latents).clamp(-1, 1), decoded, atol=1e-4)
        still = folded.encode(autoencoder, video[:, :, :1])
        assert torch.allclose(still, autoencoder.encode(video[:, :, :1]).latent_dist.mode(), atol=1e-4)


def test_training_starts_from_a_recognisable_picture():
    frames = make_clip("held_back", 0, (160, 128), 1).frames[None, :1]
    video = torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    network = starting_autoencoder()
    with torch.no_grad():
        assert psnr(folded.decode(network, folded.encode(network, video)), video) > 20


def test_steps_of_muon_are_orthogonal():
    step = orthogonal(torch.randn(24, 60, generator=torch.Generator().manual_seed(0)))
    values = torch.linalg.svdvals(step)
    assert values.min() > 0.6 and values.max() < 1.3


def _train(folder, steps, until):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.SiLU(), torch.nn.Linear(8, 2))
    run = Run(folder, "small", network, Muon(network.named_parameters()))
    schedule = Schedule(steps, 0.02, warm_up=3)
    while run.step < until:
        x = torch.randn(16, 6, generator=torch.Generator().manual_seed(run.step))
        loss = (network(x) - x[:, :2]).square().mean()
        run.optimiser.zero_grad()
        loss.backward()
        run.optimiser.step(schedule.rate(run.step))
        run.advance(loss=float(loss.detach()))
    run.save()
    return run


def test_a_resumed_run_equals_an_undisturbed_one(tmp_path):
    whole = _train(tmp_path / "whole", 30, 30)
    _train(tmp_path / "halves", 30, 11)
    halves = _train(tmp_path / "halves", 30, 30)
    for one, other in ((whole.network, halves.network), (whole.average, halves.average)):
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)
    assert len((tmp_path / "halves" / "small.jsonl").read_text().splitlines()) == 2


def test_the_rate_warms_up_and_falls_at_the_end():
    schedule = Schedule(100, 1.0, warm_up=10, fall=0.4)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9:60] == pytest.approx([1.0] * 51)
    assert rates[80] == pytest.approx(0.5) and rates[99] == pytest.approx(0.03)
