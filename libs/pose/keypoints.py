"""Key-point conventions: which index is which joint, in COCO-WholeBody (133) and in the skeleton drawn here.

Tables only; nothing here computes. Source: docs/specification.md#key-points. All indices are 0-based.
"""

import colorsys

import numpy as np

WHOLEBODY_COUNT = 133
BODY_COUNT = 20
DRAWN_BODY_COUNT = 18
"""Joints 18 and 19 (toes) are retargeted but never drawn."""
HAND_COUNT = 21
FACE_COUNT = 68

# Joints of the 20-point body.
NOSE, NECK = 0, 1
RIGHT_SHOULDER, RIGHT_ELBOW, RIGHT_WRIST = 2, 3, 4
LEFT_SHOULDER, LEFT_ELBOW, LEFT_WRIST = 5, 6, 7
RIGHT_HIP, RIGHT_KNEE, RIGHT_ANKLE = 8, 9, 10
LEFT_HIP, LEFT_KNEE, LEFT_ANKLE = 11, 12, 13
RIGHT_EYE, LEFT_EYE, RIGHT_EAR, LEFT_EAR = 14, 15, 16, 17
LEFT_TOE, RIGHT_TOE = 18, 19

HEAD_JOINTS = (NOSE, RIGHT_EYE, LEFT_EYE, RIGHT_EAR, LEFT_EAR)

# Each joint of the 20-point body is the mean of two COCO-WholeBody points (the same one twice: a copy).
BODY_FIRST_SOURCE = np.array([0, 5, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3, 17, 20])
BODY_SECOND_SOURCE = np.array([0, 6, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3, 18, 21])
LEFT_HAND_SLICE = slice(91, 112)
RIGHT_HAND_SLICE = slice(112, 133)
FACE_SLICE = slice(22, 91)
"""69 rows: the right heel, which is dropped when drawing records are made, then the 68 face points."""

# Retargeting to the reference (docs/specification.md#bone-ratios): parent, child; parents come before their children.
RETARGET_BONES = (
    (1, 2),
    (1, 5),
    (2, 3),
    (3, 4),
    (5, 6),
    (6, 7),
    (1, 8),
    (8, 9),
    (9, 10),
    (1, 11),
    (11, 12),
    (12, 13),
    (1, 0),
    (0, 14),
    (14, 16),
    (0, 15),
    (15, 17),
    (13, 18),
    (10, 19),
)

# Drawing (docs/specification.md#drawing): limb i has colour i, joint j has colour j.
LIMBS = RETARGET_BONES[:17]
BODY_COLOURS = (
    (255, 0, 0),
    (255, 85, 0),
    (255, 170, 0),
    (255, 255, 0),
    (170, 255, 0),
    (85, 255, 0),
    (0, 255, 0),
    (0, 255, 85),
    (0, 255, 170),
    (0, 255, 255),
    (0, 170, 255),
    (0, 85, 255),
    (0, 0, 255),
    (85, 0, 255),
    (170, 0, 255),
    (255, 0, 255),
    (255, 0, 170),
    (255, 0, 85),
)
HAND_EDGES = tuple(
    (0 if step == 0 else 4 * finger + step, 4 * finger + step + 1) for finger in range(5) for step in range(4)
)
HAND_EDGE_COLOURS = tuple(colorsys.hsv_to_rgb(edge / len(HAND_EDGES), 1.0, 1.0) for edge in range(len(HAND_EDGES)))
DRAWN_FACE_POINTS = (*range(17, 27), *range(36, 68))
"""Brows, eyes and mouth; jaw and nose are never drawn."""

# Face points (iBUG order) that face rescaling measures (docs/specification.md#face-rescaling).
FACE_CHIN, FACE_NOSE_BRIDGE, FACE_NOSE_TIP, FACE_RIGHT_EYE_CORNER, FACE_LEFT_EYE_CORNER = 8, 27, 30, 36, 45
