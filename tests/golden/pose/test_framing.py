"""Golden: centre crop with resize, and target sizes.

``misc_*`` files also hold what becomes of each level in upstream's lossy pose video; this project has no such file.
"""

import numpy as np
import pytest
from pose_vectors import difference, pose_cases

from libs.errors import MediaError
from libs.pose.framing import resize_crop, target_size


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
