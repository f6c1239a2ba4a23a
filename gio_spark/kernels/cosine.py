"""Cosine above a threshold between unit vectors, decided exactly.

A float32 product proposes; pairs within the rounding bound of the threshold are decided again in
float64, so that the answer does not depend on the machine or on where a row stands in a block.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gio_spark.kernels.search import FloatMatrix

_ROUNDOFF = 2.0**-24
_CHUNK = 4096


def similar(a: FloatMatrix, b: FloatMatrix, threshold: float) -> npt.NDArray[np.bool_]:
    """Tell which pairs of unit vectors have a cosine of at least `threshold`.

    Args:
        a: (n, d) float32, rows of length one.
        b: (m, d) float32, rows of length one.
        threshold: Cosine, 0 to 1.

    Returns:
        (n, m) bool.
    """
    tile = a @ b.T
    # Rounding of a product of unit vectors in any order of summation, with room for their own.
    slack = _ROUNDOFF * (a.shape[1] + 8)
    out = tile >= threshold
    left, right = np.nonzero(np.abs(tile - np.float32(threshold)) <= slack)
    for start in range(0, len(left), _CHUNK):
        i, j = left[start : start + _CHUNK], right[start : start + _CHUNK]
        out[i, j] = exact_cosine(a[i], b[j]) >= threshold
    return out


def exact_cosine(a: FloatMatrix, b: FloatMatrix) -> npt.NDArray[np.float64]:
    """Return the inner product of each pair of rows in float64, in one fixed order of summation."""
    product = a.astype(np.float64)
    product *= b
    return np.add.reduce(product, axis=1)


def keepers(rows: FloatMatrix, threshold: float, *, block: int = 1024) -> npt.NDArray[np.intp]:
    """Go through unit vectors in order of preference and drop those too like one that was kept.

    Args:
        rows: (n, d) float32 of length one, best first.
        threshold: Cosine from which two rows are duplicates.
        block: Rows compared at a time.

    Returns:
        (n,) the row that each row gives way to; its own index where it is kept.
    """
    keeper = np.arange(len(rows), dtype=np.intp)
    kept = np.empty(0, dtype=np.intp)
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        given = np.full(len(part), -1, dtype=np.intp)
        for at in range(0, len(kept), block):
            if (given >= 0).all():
                break
            against = kept[at : at + block]
            hit = similar(part, rows[against], threshold)
            found = np.flatnonzero(hit.any(axis=1) & (given < 0))
            given[found] = against[hit[found].argmax(axis=1)]
        free = np.flatnonzero(given < 0)
        inside = np.tril(similar(part[free], part[free], threshold), -1)
        # Only rows that are like an earlier one need the walk in order; they are few.
        alive = np.ones(len(free), dtype=bool)
        for line in np.flatnonzero(inside.any(axis=1)):
            earlier = np.flatnonzero(inside[line] & alive)
            if len(earlier):
                alive[line] = False
                given[free[line]] = start + free[earlier[0]]
        dropped = np.flatnonzero(given >= 0)
        keeper[start + dropped] = given[dropped]
        kept = np.concatenate([kept, start + free[alive]])
    return keeper
