"""Exact decisions whether the cosine of unit vectors reaches a threshold.

A float32 product decides the clear pairs; pairs within the rounding bound of the threshold are
decided again in float64, so that the result depends neither on the machine nor on the position of a
row in a block.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gio_spark.kernels.nearest_centroid import FloatMatrix

_ROUNDOFF = 2.0**-24
_CHUNK = 4096


def cosine_at_least(a: FloatMatrix, b: FloatMatrix, threshold: float) -> npt.NDArray[np.bool_]:
    """Decide which pairs of unit vectors have a cosine of at least `threshold`.

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
    """Inner product of each pair of rows in float64, in one fixed order of summation."""
    product = a.astype(np.float64)
    product *= b
    return np.add.reduce(product, axis=1)


def representatives(
    rows: FloatMatrix, threshold: float, *, block: int = 1024
) -> npt.NDArray[np.intp]:
    """Representative of each row among near duplicates: the first row in order of preference.

    A row is a duplicate where its cosine with an earlier representative reaches the threshold.

    Args:
        rows: (n, d) float32 of length one, best first.
        threshold: Cosine from which two rows are duplicates.
        block: Rows compared at a time.

    Returns:
        (n,) index of each row's representative; its own index where it has no duplicate before it.
    """
    representative = np.arange(len(rows), dtype=np.intp)
    kept_rows = np.empty(0, dtype=np.intp)
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        assigned = np.full(len(part), -1, dtype=np.intp)
        for offset in range(0, len(kept_rows), block):
            if (assigned >= 0).all():
                break
            compared = kept_rows[offset : offset + block]
            is_duplicate = cosine_at_least(part, rows[compared], threshold)
            matched = np.flatnonzero(is_duplicate.any(axis=1) & (assigned < 0))
            assigned[matched] = compared[is_duplicate[matched].argmax(axis=1)]
        unmatched = np.flatnonzero(assigned < 0)
        earlier_duplicates = np.tril(
            cosine_at_least(part[unmatched], part[unmatched], threshold), -1
        )
        # Only rows that are like an earlier one need the walk in order; they are few.
        is_kept = np.ones(len(unmatched), dtype=bool)
        for row in np.flatnonzero(earlier_duplicates.any(axis=1)):
            earlier = np.flatnonzero(earlier_duplicates[row] & is_kept)
            if len(earlier):
                is_kept[row] = False
                assigned[unmatched[row]] = start + unmatched[earlier[0]]
        duplicates = np.flatnonzero(assigned >= 0)
        representative[start + duplicates] = assigned[duplicates]
        kept_rows = np.concatenate([kept_rows, start + unmatched[is_kept]])
    return representative
