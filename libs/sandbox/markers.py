"""The colour code: one colour per anchor point, chosen so that a network graph can tell all of them apart.

The 24 colours are a farthest-point set in Y'CbCr (BT.709): any two are at least 0.277 apart, and at least 0.2 from grey
tones, skin tones and the muted colours puppets and backgrounds are painted in. That leaves room for chroma
subsampling, quantisation and interpolation between drawing and recognition. Neighbouring joints got the colours that
differ most. What does not belong here: how markers are drawn (``puppet``) and found (``pose_graphs``).
"""

import numpy as np

from libs.sandbox.keypoints import ANCHOR_NAMES

_COLOURS = {
    "nose": (255, 195, 75),
    "left_eye": (0, 225, 255),
    "right_eye": (0, 0, 255),
    "left_ear": (105, 60, 180),
    "right_ear": (180, 255, 150),
    "left_shoulder": (255, 255, 0),
    "right_shoulder": (150, 0, 255),
    "left_elbow": (0, 120, 0),
    "right_elbow": (150, 135, 0),
    "left_wrist": (30, 195, 0),
    "right_wrist": (120, 255, 0),
    "left_hip": (255, 165, 255),
    "right_hip": (0, 0, 105),
    "left_knee": (105, 0, 30),
    "right_knee": (135, 225, 255),
    "left_ankle": (0, 255, 135),
    "right_ankle": (255, 0, 180),
    "left_toe": (240, 75, 255),
    "right_toe": (45, 180, 135),
    "left_middle_tip": (255, 105, 135),
    "left_thumb_tip": (0, 75, 240),
    "right_middle_tip": (60, 150, 255),
    "right_thumb_tip": (180, 60, 0),
    "lower_lip": (255, 0, 30),
}

_FACE_RADIUS, _TIP_RADIUS, _JOINT_RADIUS = 0.0125, 0.013, 0.0145
_RADII = {
    **dict.fromkeys(("nose", "left_eye", "right_eye", "lower_lip"), _FACE_RADIUS),
    **{f"{side}_{tip}": _TIP_RADIUS for side in ("left", "right") for tip in ("middle_tip", "thumb_tip", "toe")},
}

MARKER_COLOURS = np.array([_COLOURS[name] for name in ANCHOR_NAMES], dtype=np.uint8)
"""uint8 RGB [24, 3], in the order of ``ANCHOR_NAMES``."""

_RELATIVE_RADII = np.array([_RADII.get(name, _JOINT_RADIUS) for name in ANCHOR_NAMES])
_SMALLEST_RADIUS = 3.1  # pixels: three samples of subsampled chroma across


def marker_radii(height: float) -> np.ndarray:
    """Radius of each marker in pixels, float64 [24], on a figure ``height`` pixels tall."""
    return np.maximum(_RELATIVE_RADII * height, _SMALLEST_RADIUS)


RGB_TO_YCBCR = np.array([[0.2126, 0.7152, 0.0722], [-0.1146, -0.3854, 0.5], [0.5, -0.4542, -0.0458]], dtype=np.float64)
"""BT.709 luma and colour differences of RGB in [0, 1]: the space in which colours are compared."""

MATCH_DISTANCE = 0.135
"""A pixel belongs to a marker when it is nearer than this to its colour: just below half the smallest separation."""
