"""The constructed weights do what they were constructed for."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan

from libs.model_repo.variants import get_variant
from libs.one_to_all.sampling.schedule import build_scheduler
from libs.one_to_all.sampling.vae import decode_latents, encode_latents
from libs.sandbox.autoencoder import build_autoencoder, latent_of_colour
from libs.sandbox.network import build_transformer
from libs.sandbox.puppet import REFERENCE, draw_puppet
from libs.sandbox.skeleton import Pose

SANDBOX = get_variant("sandbox")
HEIGHT, WIDTH = 160, 128


def signed(frames: np.ndarray) -> torch.Tensor:
    """uint8 [T, H, W, 3] -> [1, 3, T, H, W] in [-1, 1]."""
    return torch.from_numpy(frames.copy()).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


@pytest.fixture(scope="module")
def autoencoder() -> AutoencoderKLWan:
    return build_autoencoder()


@pytest.fixture(scope="module")
def transformer():
    return build_transformer(SANDBOX.network, SANDBOX.sampling, seed=0)


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    return signed(draw_puppet(REFERENCE, Pose(), WIDTH, HEIGHT)[None])


def decibels(one: torch.Tensor, two: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of two pictures in [-1, 1], without the edge, which zero padding turns grey."""
    return float(10 * torch.log10(4 / (one - two)[..., 8:-8, 8:-8].square().mean()))


@torch.no_grad()
def test_a_decoded_picture_looks_like_the_encoded_one(autoencoder, picture):
    latents = encode_latents(autoencoder, picture)
    assert latents.shape == (1, 16, 1, HEIGHT // 8, WIDTH // 8)
    assert 0.3 < latents[:, 0:12:4].std() < 1.5
    cells = torch.nn.functional.avg_pool2d(picture[:, :, 0], 8)  # one colour per latent cell
    coarse = torch.nn.functional.interpolate(cells, scale_factor=8, mode="bilinear")[:, :, None]
    assert decibels(decode_latents(autoencoder, latents), picture) > max(22.0, decibels(coarse, picture) + 1.0)


@torch.no_grad()
def test_a_clip_decodes_to_its_own_length_in_groups_of_four(autoencoder, picture):
    brightness = torch.linspace(0.2, 1.0, 9).view(1, 1, 9, 1, 1)
    clip = (picture + 1) * brightness - 1
    decoded = decode_latents(autoencoder, encode_latents(autoencoder, clip))
    assert decoded.shape == clip.shape
    groups = [slice(0, 1), slice(1, 5), slice(5, 9)]
    for group in groups:
        mean = clip[:, :, group].mean(dim=2, keepdim=True).expand_as(clip[:, :, group])
        assert decibels(decoded[:, :, group], mean) > 21


@torch.no_grad()
def test_the_latents_of_an_even_surface_are_known(autoencoder):
    colour = torch.tensor([-1.0, 0.25, 0.75])
    latents = encode_latents(autoencoder, colour.view(1, 3, 1, 1, 1).expand(1, 3, 1, 64, 64))
    torch.testing.assert_close(latents[0, :, 0, 4, 4], latent_of_colour(colour), atol=0.03, rtol=0)


@torch.no_grad()
def sampled(transformer, autoencoder, picture, poses, steps: int, guidance=(2.0, 1.5)) -> torch.Tensor:
    """Denoise with image and pose guidance as the engine does, and decode: [3, T, H, W]."""
    image_latents = encode_latents(autoencoder, picture)
    black = encode_latents(autoencoder, torch.full_like(picture, -1))
    given, nothing = torch.cat([image_latents, black], 1), torch.cat([black, black], 1)
    text = torch.zeros(1, 8, SANDBOX.network.text_dim)
    scheduler = build_scheduler()
    scheduler.set_timesteps(steps)
    latents = torch.randn(
        1, 16, (poses.shape[2] - 1) // 4 + 1, *given.shape[3:], generator=torch.Generator().manual_seed(42)
    )
    for index, timestep in enumerate(scheduler.timesteps):
        both, neither, pose = (
            transformer(latents, timestep[None], text, poses, image, poses[:, :, :1], scale).sample
            for image, scale in ((given, 1.0), (nothing, 0.0), (nothing, 1.0))
        )
        velocity = neither + guidance[1] * (pose - neither) + guidance[0] * (both - pose)
        assert torch.isfinite(velocity).all()
        assert 0.5 < velocity.std() < 2
        latents = latents + (scheduler.sigmas[index + 1] - scheduler.sigmas[index]) * velocity
    return decode_latents(autoencoder, latents)[0]


@pytest.mark.parametrize("steps", [2, 4])
def test_without_a_pose_the_clip_shows_the_picture(transformer, autoencoder, picture, steps):
    frames = sampled(transformer, autoencoder, picture, torch.full((1, 3, 1, HEIGHT, WIDTH), -1.0), steps)
    assert decibels(frames[:, 0], picture[0, :, 0]) > 22


@pytest.mark.slow
def test_a_drawn_pose_shines_where_and_when_it_is_drawn(transformer, autoencoder, picture):
    poses = torch.full((1, 3, 5, HEIGHT, WIDTH), -1.0)
    dark = sampled(transformer, autoencoder, picture, poses, 2)
    poses[:, 1, 1:, 40:56, 16:48] = 1.0  # green, in the last four frames
    lit = sampled(transformer, autoencoder, picture, poses, 2)
    difference = lit - dark
    shining = difference[:, 1:, 44:52, 20:44]
    assert shining[1].mean() > 0.5
    assert shining[1].mean() > 5 * shining[[0, 2]].abs().mean()
    assert difference[:, 0].abs().max() < 0.1
    assert difference[:, 1:, 72:].abs().max() < 0.1


def test_bfloat16_weights_are_as_good(autoencoder, picture):
    """The stored weights are bfloat16; the constructed ones must survive the rounding."""
    transformer = build_transformer(SANDBOX.network, SANDBOX.sampling, seed=0)
    for parameter in transformer.parameters():
        parameter.copy_(parameter.to(torch.bfloat16).float())
    frames = sampled(transformer, autoencoder, picture, torch.full((1, 3, 1, HEIGHT, WIDTH), -1.0), 4)
    assert decibels(frames[:, 0], picture[0, :, 0]) > 22


@torch.no_grad()
def test_the_prompt_matters_a_little(transformer):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 16, 1, 8, 8, generator=generator)
    image = torch.randn(1, 32, 1, 8, 8, generator=generator)
    velocities = [
        transformer(latents, torch.tensor([500.0]), text, None, image, None, 0.0).sample
        for text in torch.randn(2, 1, 4, SANDBOX.network.text_dim, generator=generator)
    ]
    difference = (velocities[0] - velocities[1]).abs().mean()
    assert 1e-5 < difference < 0.1


def test_building_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_transformer(SANDBOX.network, SANDBOX.sampling, seed=3)
    torch.testing.assert_close(torch.rand(3), expected)
