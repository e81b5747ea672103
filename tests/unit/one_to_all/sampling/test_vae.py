"""Between uint8 and [-1, 1]."""

import numpy as np
import pytest
import torch

from libs.one_to_all.sampling.vae import mask_from_uint8, signed_from_uint8, uint8_from_signed

CPU = torch.device("cpu")


def test_uint8_becomes_signed_in_float32():
    pixels = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3) * 3
    signed = signed_from_uint8(pixels, CPU, torch.float32)
    assert signed.shape == (1, 3, 2, 3, 4)
    expected = pixels.astype(np.float32) / np.float32(255) * np.float32(2) - np.float32(1)
    assert np.array_equal(signed[0].permute(1, 2, 3, 0).numpy(), expected)
    assert signed.is_contiguous()


def test_read_only_pictures_are_taken(recwarn):
    pixels = np.zeros((1, 16, 16, 3), np.uint8)
    pixels.flags.writeable = False
    signed_from_uint8(pixels, CPU, torch.float32)
    assert not [warning for warning in recwarn if "writable" in str(warning.message)]


def test_a_mask_is_a_grey_picture():
    mask = np.array([[0, 255], [128, 1]], np.uint8)
    signed = mask_from_uint8(mask, CPU, torch.float32)
    assert signed.shape == (1, 3, 1, 2, 2)
    assert signed[0, :, 0, 0, 0].tolist() == [-1, -1, -1]
    assert signed[0, :, 0, 0, 1].tolist() == [1, 1, 1]
    assert (signed == signed[:, :1]).all()


@pytest.mark.parametrize(
    ("value", "level"), [(-1.0, 0), (1.0, 255), (-1.5, 0), (2.0, 255), (0.0, 127), (0.99999, 254), (-1 + 1.99 / 255, 0)]
)
def test_to_uint8_truncates(value, level):
    assert uint8_from_signed(torch.full((1, 3, 2, 4, 5), value)).tolist() == np.full((2, 4, 5, 3), level).tolist()


def test_to_uint8_equals_the_specification():
    video = torch.randn(1, 3, 5, 16, 32, generator=torch.Generator().manual_seed(0))
    unit = (video / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 3, 0).numpy()
    assert np.array_equal(uint8_from_signed(video), (unit * np.float32(255)).astype(np.uint8))


def test_bfloat16_video_is_halved_in_bfloat16():
    video = torch.linspace(-1, 1, 960).view(1, 3, 1, 16, 20).bfloat16()
    unit = (video / 2 + 0.5).float()[0].permute(1, 2, 3, 0).numpy()
    assert np.array_equal(uint8_from_signed(video), (unit * np.float32(255)).astype(np.uint8))
