"""Heatmaps -> key-points: "unbiased" (DARK) decoding, vectorised over key-points and frames.

Source: docs/specification.md#heatmap-decoding.
"""

import cv2
import numpy as np

HEATMAP_HEIGHT, HEATMAP_WIDTH = 64, 48
_KERNEL = 11
_RADIUS = _KERNEL // 2
_SMALLEST = 1e-10


def decode_heatmaps(heatmaps: np.ndarray, centre: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Key-points in frame pixels.

    Args:
        heatmaps: [B, K, 64, 48] float32.
        centre: [B, 2] x, y of the crops' centres in frame pixels.
        size: [B, 2] width, height of the crops in frame pixels (not rounded).

    Returns:
        [B, K, 3] float32: x, y, score. The score is the heatmap's maximum; where it is not positive the point is
        undefined and lies one cell outside the crop's upper left corner.
    """
    cells, scores = locate_peaks(heatmaps)
    # in float32 step by step, as upstream does: the last bit can decide where a retargeted hand's pixel ends up
    step = (size / (HEATMAP_WIDTH, HEATMAP_HEIGHT)).astype(np.float32)[:, None]
    points = cells * step + centre.astype(np.float32)[:, None] - (size * 0.5).astype(np.float32)[:, None]
    return np.concatenate([points, scores[..., None]], axis=-1)


def locate_peaks(heatmaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sub-cell positions [B, K, 2] (x, y in cells) and maxima [B, K] of heatmaps [B, K, 64, 48]; all float32."""
    batch, count = heatmaps.shape[:2]
    maps = heatmaps.reshape(-1, HEATMAP_HEIGHT, HEATMAP_WIDTH).astype(np.float32, copy=False)
    flat = maps.reshape(len(maps), -1)
    index = flat.argmax(axis=1)
    scores = flat[np.arange(len(flat)), index]
    y, x = np.divmod(index, HEATMAP_WIDTH)
    cells = np.stack([x, y], axis=1).astype(np.float32)
    cells[scores <= 0] = -1

    # One Newton step on the logarithm of the blurred map, where its 5 x 5 neighbourhood lies inside.
    inner = np.flatnonzero((scores > 0) & (x > 1) & (x < HEATMAP_WIDTH - 2) & (y > 1) & (y < HEATMAP_HEIGHT - 2))
    if len(inner):
        around = _neighbourhoods(blur_keeping_maximum(maps[inner]), x[inner], y[inner])
        cells[inner] -= _newton_step(np.log(np.maximum(around, np.float32(_SMALLEST))))
    return cells.reshape(batch, count, 2), scores.reshape(batch, count)


def blur_keeping_maximum(maps: np.ndarray) -> np.ndarray:
    """Maps [N, 64, 48] blurred with an 11 x 11 Gaussian of sigma 2 (zeros outside), each scaled to its old maximum.

    All maps go through one call, stacked with zero rows between them so that they do not touch. An all-zero map gives
    NaN.
    """
    stacked = np.zeros((len(maps), HEATMAP_HEIGHT + _RADIUS, HEATMAP_WIDTH), dtype=np.float32)
    stacked[:, :HEATMAP_HEIGHT] = maps
    sheet = stacked.reshape(-1, HEATMAP_WIDTH)
    # sigma 0: derived from the kernel size, 0.3 * ((11 - 1) / 2 - 1) + 0.8 = 2.0
    blurred = cv2.GaussianBlur(sheet, (_KERNEL, _KERNEL), 0, borderType=cv2.BORDER_CONSTANT)
    blurred = blurred.reshape(stacked.shape)[:, :HEATMAP_HEIGHT]
    old, new = maps.max(axis=(1, 2)), blurred.max(axis=(1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        return blurred * (old / new)[:, None, None]


def _neighbourhoods(maps: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The 5 x 5 cells around x, y [N] of maps [N, 64, 48]: [N, 5, 5]."""
    offsets = np.arange(-2, 3)
    rows = np.arange(len(maps))[:, None, None]
    return maps[rows, (y[:, None] + offsets)[:, :, None], (x[:, None] + offsets)[:, None, :]]


def _newton_step(logarithm: np.ndarray) -> np.ndarray:
    """D^-1 g in the middle of neighbourhoods [N, 5, 5]: [N, 2] x, y; zero where the curvature D is singular.

    Not bounded. First and mixed differences are rounded to float32, all else is in double, as in the reference
    environment.
    """

    def at(dy: int, dx: int) -> np.ndarray:
        return logarithm[:, 2 + dy, 2 + dx]

    def double(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float64)

    gx = double(at(0, 1) - at(0, -1)) / 2
    gy = double(at(1, 0) - at(-1, 0)) / 2
    dxx = (double(at(0, 2)) - 2 * double(at(0, 0)) + double(at(0, -2))) / 4
    dyy = (double(at(2, 0)) - 2 * double(at(0, 0)) + double(at(-2, 0))) / 4
    dxy = double(at(1, 1) - at(-1, 1) - at(1, -1) + at(-1, -1)) / 4
    determinant = dxx * dyy - dxy * dxy
    regular = determinant != 0
    divisor = np.where(regular, determinant, 1.0)
    step = np.stack([dyy * gx - dxy * gy, dxx * gy - dxy * gx], axis=1) / divisor[:, None]
    return np.where(regular[:, None], step, 0.0)
