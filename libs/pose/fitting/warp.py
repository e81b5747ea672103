"""Mode ``pose``: the reference picture, its pose drawing and a mask moved into the driver's framing.

See ``align_pose`` for how far to move and scale, ``framing`` for bringing the result to the target size. Source:
docs/specification.md#warp-of-the-reference.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from libs.errors import PoseError
from libs.pose.draw import DrawingStyle, draw_pose
from libs.pose.fitting.align_pose import figure_scale
from libs.pose.keypoints import NECK
from libs.pose.record import PoseRecord

_OUTSIDE = 255


@dataclass(frozen=True, eq=False)
class WarpedReference:
    """The moved reference, all of its own size.

    Attributes:
        image: [H, W, 3] uint8; black outside the picture.
        pose: [H, W, 3] uint8; the drawing of the reference's pose (no face), moved likewise.
        mask: [H, W] uint8; 255 outside the picture, 0 inside.
        scale: how much larger the figure became.
    """

    image: np.ndarray
    pose: np.ndarray
    mask: np.ndarray
    scale: float


def warp_reference(
    image: np.ndarray, reference: PoseRecord, target: PoseRecord, centre: bool = False
) -> WarpedReference:
    """Scale the reference to the figure in ``target`` and put its neck on that figure's neck.

    Args:
        image: [H, W, 3] uint8 RGB.
        reference: the picture's record (one frame).
        target: the driver's anchor frame (one frame).
        centre: put the neck in the middle of the picture horizontally instead.

    Raises:
        PoseError: the figures' positions or sizes are not usable.
    """
    height, width = image.shape[:2]
    scale = figure_scale(reference, target).ratio
    x0, y0 = reference.body[0, NECK].astype(np.float64) * (width, height)
    x1, y1 = target.body[0, NECK].astype(np.float64) * (width, height)
    if centre:
        x1 = width / 2
    matrix = np.array([[scale, 0, (1 - scale) * x0 + x1 - x0], [0, scale, (1 - scale) * y0 + y1 - y0]], np.float32)
    if not np.isfinite(matrix).all() or scale <= 0:
        raise PoseError(
            f"the reference cannot be fitted to the driver's anchor frame (scale {scale:.3g}): shoulders or ears of "
            "one of them lie on one spot; choose another anchor frame or mode ref"
        )
    size = (width, height)
    drawing = draw_pose(reference, 0, height, width, DrawingStyle(face="none"))
    return WarpedReference(
        image=cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderValue=(0, 0, 0)),
        pose=cv2.warpAffine(drawing, matrix, size, flags=cv2.INTER_LINEAR, borderValue=(0, 0, 0)),
        mask=cv2.warpAffine(
            np.zeros((height, width), np.uint8), matrix, size, flags=cv2.INTER_NEAREST, borderValue=_OUTSIDE
        ),
        scale=scale,
    )
