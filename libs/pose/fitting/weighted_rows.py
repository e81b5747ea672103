"""Weighted sums of rows of bytes, in the fixed-point arithmetic of Pillow: the inner loop of resizing, compiled.

numba compiles it for this processor when it is first called, and keeps the machine code on the disk: beside this file,
or in the user's cache folder (``NUMBA_CACHE_DIR`` names another) where this one cannot be written to. Processes that
start at the same time may each compile it once; files are replaced as a whole. See ``bicubic`` for the rows and
weights.
"""

from collections.abc import Callable

import numba
import numpy as np

WEIGHT_BITS = 22
"""A weight of 1 is 2^22: with 8 bits of a pixel and 2 for overshoot that fills 32 (Pillow's ``PRECISION_BITS``)."""
_HALF = np.int32(1 << (WEIGHT_BITS - 1))


def _add_weighted_rows(rows: np.ndarray, first: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    count, width = weights.shape[1], rows.shape[1]
    sums = np.empty(width, dtype=np.int32)
    for target in range(len(out)):
        sums[:] = _HALF
        for tap in range(count):
            weight = weights[target, tap]
            if weight:  # the unused taps of a short line may lie beyond the last row
                row = rows[first[target] + tap]
                for column in range(width):
                    sums[column] += np.int32(row[column]) * weight
        line = out[target]
        for column in range(width):
            line[column] = min(max(sums[column] >> WEIGHT_BITS, 0), 255)


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Compile ``function`` with numba, cached on disk if that is possible."""
    try:
        return numba.njit(nogil=True, cache=True)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # no folder to keep it in: then each process compiles it, which takes a second
        return numba.njit(nogil=True)(function)  # type: ignore[no-any-return]


_add = compiled(_add_weighted_rows)


def add_weighted_rows(rows: np.ndarray, first: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Each line of the result is a weighted sum of neighbouring rows, rounded and clipped to bytes.

    Args:
        rows: [N, W] uint8.
        first: [M] int32; the row that a line's first weight belongs to.
        weights: [M, K] int32 in units of 2^-22, zero behind a line's last row.

    Returns:
        [M, W] uint8.
    """
    out = np.empty((len(first), rows.shape[1]), dtype=np.uint8)
    _add(np.ascontiguousarray(rows), first, weights, out)
    return out
