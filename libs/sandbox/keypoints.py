"""The 24 anchor points of a puppet, and the 133 COCO-WholeBody key-points that follow from them.

Not every one of 133 points can carry a colour of its own that survives chroma subsampling. So 24 anchor points do
(17 body joints, a toe tip per foot, a middle-finger tip and a thumb tip per hand, the lower lip), and every key-point
is one fixed linear function of the anchors: an affine combination (coefficients sum to one) plus, for the feet, a
combination of the anchors turned by 90 degrees (coefficients sum to zero). Drawing uses it to place fingers and face;
the pose graph uses the same matrices to give all 133 heat maps. What does not belong here: colours (``markers``),
proportions and motion (``skeleton``, ``dance``).

Key-point order: docs/specification.md#key-points. Arrays are ``[..., points, 2]`` in pixels, x to the right, y
down.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

KEYPOINT_COUNT = 133
BODY = range(17)
FEET = range(17, 23)
FACE = range(23, 91)
LEFT_HAND = range(91, 112)
RIGHT_HAND = range(112, 133)

ANCHOR_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle", "left_toe", "right_toe", "left_middle_tip", "left_thumb_tip", "right_middle_tip",
    "right_thumb_tip", "lower_lip",
)  # fmt: skip
"""The anchors; the first 17 are the COCO body joints in their order."""

ANCHOR_INDEX = {name: index for index, name in enumerate(ANCHOR_NAMES)}
ANCHOR_COUNT = len(ANCHOR_NAMES)

# A hand lying along +x, wrist at the origin, middle-finger tip at (1, 0), thumb to +y. Points in the order of
# COCO-WholeBody: root, then thumb, index, middle, ring and little finger from palm to tip.
_HAND = np.array(
    [
        (0.00, 0.00),
        (0.17, 0.17), (0.30, 0.32), (0.42, 0.43), (0.50, 0.52),
        (0.50, 0.18), (0.70, 0.21), (0.83, 0.23), (0.94, 0.24),
        (0.52, 0.03), (0.74, 0.03), (0.88, 0.02), (1.00, 0.00),
        (0.48, -0.11), (0.68, -0.15), (0.81, -0.18), (0.92, -0.20),
        (0.42, -0.23), (0.57, -0.31), (0.67, -0.36), (0.77, -0.41),
    ]
)  # fmt: skip

# A left foot: ankle at the origin, toe tip at (1, 0), inner side of the foot to +y. Big toe, small toe, heel.
_FOOT = np.array([(1.0, 0.12), (0.86, -0.3), (-0.32, 0.04)])

# The face in units of the distance between the eyes: right eye (-0.5, 0), left eye (0.5, 0), nose tip (0, 0.5), lower
# lip (0, 1). Points that follow the lower lip (jaw, lower half of the mouth) move with it.
_FACE_ANCHORS = {"right_eye": (-0.5, 0.0), "left_eye": (0.5, 0.0), "nose": (0.0, 0.5), "lower_lip": (0.0, 1.0)}


def _arc(centre: tuple[float, float], radii: tuple[float, float], start: float, stop: float, count: int) -> np.ndarray:
    """``count`` points of an ellipse from angle ``start`` to ``stop`` in degrees (0 = right, 90 = down)."""
    angles = np.radians(np.linspace(start, stop, count))
    return np.stack([centre[0] + radii[0] * np.cos(angles), centre[1] + radii[1] * np.sin(angles)], axis=1)


def _smile(half_width: float, depth: float, count: int) -> np.ndarray:
    """``count`` points of an arc from the right to the left corner of the mouth, ``depth`` lower in the middle."""
    x = np.linspace(-half_width, half_width, count)
    return np.stack([x, 0.82 + depth * (1 - (x / half_width) ** 2)], axis=1)


def _face_template() -> tuple[np.ndarray, np.ndarray]:
    """The 68 points in iBUG order and how much each follows the lower lip (0 or 1)."""
    jaw = _arc((0.0, 0.15), (1.12, 1.28), 180, 0, 17)
    brows = np.concatenate([_arc((x, -0.2), (0.3, 0.22), 200, 340, 5) for x in (-0.54, 0.54)])
    bridge = np.stack([np.zeros(4), np.linspace(0.05, 0.5, 4)], axis=1)
    nostrils = _arc((0.0, 0.54), (0.2, 0.1), 180, 0, 5)
    eyes = np.concatenate(
        [_arc((x, 0.0), (0.24, 0.17), 180, 480, 6) for x in (-0.5, 0.5)]
    )  # corner, two on the upper lid, corner, two on the lower lid
    mouth_outer = np.concatenate([_smile(0.38, 0.05, 7), _smile(0.38, 0.24, 7)[-2:0:-1]])
    mouth_inner = np.concatenate([_smile(0.28, 0.08, 5), _smile(0.28, 0.17, 5)[-2:0:-1]])
    points = np.concatenate([jaw, brows, bridge, nostrils, eyes, mouth_outer, mouth_inner])
    follows = np.zeros(68)
    follows[4:13] = 1.0  # the lower half of the jaw
    follows[55:60] = 1.0  # the lower edge of the mouth, outer
    follows[65:68] = 1.0  # and inner
    return points, follows


def _affine_coefficients(points: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Coefficients ``[n, 3]`` that write ``points`` as affine combinations of three ``basis`` points."""
    system = np.concatenate([basis.T, np.ones((1, 3))])
    return np.linalg.solve(system, np.concatenate([points.T, np.ones((1, len(points)))])).T


@dataclass(frozen=True)
class KeypointMap:
    """key-points = ``affine`` @ anchors + ``turned`` @ turn(anchors), with turn(x, y) = (-y, x).

    ``affine`` and ``turned`` are float64 [133, 24]; ``support`` int64 [133, 4] lists the anchors a key-point depends on
    (repeated where there are fewer than four): a key-point is as certain as the least certain of them.
    """

    affine: np.ndarray
    turned: np.ndarray
    support: np.ndarray

    def __call__(self, anchors: np.ndarray) -> np.ndarray:
        """All key-points ``[..., 133, 2]`` of ``anchors`` ``[..., 24, 2]``."""
        turned = np.stack([-anchors[..., 1], anchors[..., 0]], axis=-1)
        return self.affine @ anchors + self.turned @ turned


@lru_cache(maxsize=1)
def keypoint_map() -> KeypointMap:
    """The one map used by drawing and by the pose graph."""
    affine = np.zeros((KEYPOINT_COUNT, ANCHOR_COUNT))
    turned = np.zeros((KEYPOINT_COUNT, ANCHOR_COUNT))
    affine[np.array(BODY), np.array(BODY)] = 1.0

    for side, rows in (("left", (17, 18, 19)), ("right", (20, 21, 22))):
        ankle, toe = ANCHOR_INDEX[f"{side}_ankle"], ANCHOR_INDEX[f"{side}_toe"]
        inner = 1.0 if side == "left" else -1.0
        for row, (along, across) in zip(rows, _FOOT, strict=True):
            affine[row, [ankle, toe]] = 1 - along, along
            turned[row, [ankle, toe]] = -inner * across, inner * across

    hand_basis = _HAND[[0, 12, 4]]
    for side, hand_rows in (("left", LEFT_HAND), ("right", RIGHT_HAND)):
        columns = [ANCHOR_INDEX[f"{side}_{name}"] for name in ("wrist", "middle_tip", "thumb_tip")]
        affine[np.ix_(list(hand_rows), columns)] = _affine_coefficients(_HAND, hand_basis)

    points, follows = _face_template()
    names = ("right_eye", "left_eye", "nose")
    columns = [ANCHOR_INDEX[name] for name in names]
    basis = np.array([_FACE_ANCHORS[name] for name in names])
    face = _affine_coefficients(points, basis)
    lip_at_rest = _affine_coefficients(np.array([_FACE_ANCHORS["lower_lip"]]), basis)
    affine[np.ix_(list(FACE), columns)] = face - follows[:, None] * lip_at_rest
    affine[list(FACE), ANCHOR_INDEX["lower_lip"]] = follows

    return KeypointMap(affine, turned, _support(affine, turned))


def _support(affine: np.ndarray, turned: np.ndarray) -> np.ndarray:
    rows = []
    for coefficients in np.abs(affine) + np.abs(turned):
        anchors = np.flatnonzero(coefficients > 1e-9)
        rows.append(np.resize(anchors, 4))
    return np.array(rows, dtype=np.int64)
