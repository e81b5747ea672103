"""Golden: centre crop with resize, target sizes, and what becomes of each level on its way to [-1, 1] and back."""

import numpy as np
import pytest
import torch
from pose_vectors import difference, pose_cases

from libs.errors import MediaError
from libs.one_to_all.sampling.vae import signed_from_uint8, uint8_from_signed
from libs.pose.fitting.framing import resize_crop, target_size


@pytest.mark.parametrize("vectors", pose_cases("resizecrop"))
def test_resize_crop(vectors, record_case):
    for case in range(int(vectors["in_n"])):
        height, width = int(vectors["in_th"][case]), int(vectors["in_tw"][case])
        found = resize_crop(vectors[f"in_img{case}"], height, width)
        record_case("pose resizecrop", difference(found, vectors[f"out_img{case}"]))
        np.testing.assert_array_equal(found, vectors[f"out_img{case}"], err_msg=f"case {case}")


@pytest.mark.parametrize("vectors", pose_cases("misc"))
def test_target_size(vectors, record_case):
    for (width, height), expected in zip(vectors["in_sizes_wh"], vectors["out_target_hw"], strict=True):
        record_case("pose misc", None)
        if min(expected) == 0:
            with pytest.raises(MediaError, match=f"{width} x {height}"):
                target_size(int(height), int(width))
        else:
            size = target_size(int(height), int(width))
            assert (size.height, size.width) == tuple(expected)


@pytest.mark.parametrize("vectors", pose_cases("misc"))
def test_levels_through_the_signed_range(vectors, record_case):
    """Upstream's pose video; the engine's finished frames go the same way, truncated."""
    levels = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), (1, 16, 16, 3))
    found = uint8_from_signed(signed_from_uint8(levels, torch.device("cpu"), torch.float32))
    error = difference(found[0, ..., 0].reshape(-1), vectors["out_video_levels"])
    record_case("pose misc", error)
    assert error == 0
