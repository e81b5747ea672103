"""Centre crop and resize of cached pictures to a clip's size (the long video's raw inputs)."""

import numpy as np
import pytest
from golden_folders import golden_cases
from golden_model_files import GoldenCase, index_files, index_name, tensors

from libs.pose.fitting.framing import resize_crop, target_size

_SHORT_SIDE_LIMITS = {"14b": 576, "1.3b": 384}


def _long_videos(folder):
    for path, index in index_files(folder, "requested_height", "requested_width", "file", "chunks"):
        if "in/raw_image_u8" in tensors(path.parent / index["file"]):
            yield index_name(folder, path), GoldenCase(path, index)


@pytest.mark.parametrize("case", golden_cases("framing", _long_videos))
def test_framing(case, record_case):
    saved = {name: tensor.numpy() for name, tensor in tensors(case.file(case.index["file"])).items()}
    requested = case.index["requested_height"], case.index["requested_width"]
    if None in requested:  # then the cached picture's own size counts
        requested = saved["in/raw_image_u8"].shape[:2]
    limit = _SHORT_SIDE_LIMITS.get(case.index.get("driver", {}).get("script", ""), min(_SHORT_SIDE_LIMITS.values()))
    target = target_size(*requested, limit)
    size = target.height, target.width
    assert {(chunk["height"], chunk["width"]) for chunk in case.index["chunks"]} == {size}
    poses = np.stack([resize_crop(frame, *size) for frame in saved["in/raw_pose_video_u8"]])
    reference_pose = saved["in/src_pose_u8"][0, :, 0].transpose(1, 2, 0)
    pairs = {
        "image": (resize_crop(saved["in/raw_image_u8"], *size), saved["in/image_resized_u8"]),
        "mask": (resize_crop(saved["in/raw_mask_u8"], *size) / 255, saved["in/mask_resized"][0, 0, 0]),
        "reference pose": (resize_crop(saved["in/raw_src_pose_u8"], *size), reference_pose),
        "poses": (poses, saved["in/pose_tensor_u8"][0].transpose(1, 2, 3, 0)),
    }
    errors = {
        name: float(np.abs(actual.astype(np.float64) - expected).max()) for name, (actual, expected) in pairs.items()
    }
    record_case("framing", max(errors.values()))
    assert errors.pop("mask") < 1e-6
    assert set(errors.values()) == {0.0}
