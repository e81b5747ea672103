import math
import struct

import pytest

from libs.media.video.orientation import orientation_from_display_matrix


@pytest.mark.parametrize(
    "degrees", [*range(-40, 41, 20), *range(50, 131, 20), *range(140, 221, 20), *range(230, 311, 20)]
)
def test_a_tilted_camera_is_turned_to_the_nearest_quarter(degrees):
    """ISO 14496-12, section 8.5.2: the matrix that turns clockwise, as 16.16 fixed point."""
    cosine, sine = (
        round(65536 * value) for value in (math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))
    )
    matrix = struct.pack("=9i", cosine, sine, 0, -sine, cosine, 0, 0, 0, 1 << 30)
    orientation = orientation_from_display_matrix(matrix)
    assert orientation.rotation == round(degrees / 90) % 4 * 90
