"""Rounding to whole numbers with an exact sum, by largest remainders (Hamilton's method)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def largest_remainders(
    exact: NDArray[Any],
    total: int,
    *,
    least: ArrayLike = 0,
    most: ArrayLike | None = None,
    slack: float = 1e-9,
) -> NDArray[np.int64]:
    """Round numbers to whole numbers with an exact sum, by largest remainders.

    Numbers are rounded down, and the difference to the sum is added one by one where the remainders
    are largest. Of equal remainders the first counts. Where the bounds do not allow the sum, the
    result has the nearest sum that they allow.

    Args:
        exact: (n,) numbers, at least 0.
        total: Sum to reach.
        least: (n,) lower bounds, or one for all.
        most: (n,) upper bounds; None: no upper bound.
        slack: A number at most this far below a whole number counts as that whole number.

    Returns:
        (n,) int64.

    Example:
        >>> largest_remainders(np.array([1.4, 2.5, 0.1]), 4)
        array([1, 3, 0])
    """
    low = np.broadcast_to(np.asarray(least, np.int64), exact.shape)
    high = np.broadcast_to(
        np.asarray(np.iinfo(np.int64).max if most is None else most), exact.shape
    )
    rounded = np.clip(np.floor(exact + slack).astype(np.int64), low, high)
    while rounded.sum() != total:
        sign = 1 if rounded.sum() < total else -1
        adjustable = rounded < high if sign > 0 else rounded > low
        if not adjustable.any():
            break
        score = np.where(adjustable, sign * (exact - rounded), -np.inf)
        count = min(abs(int(total - rounded.sum())), int(adjustable.sum()))
        rounded[np.argsort(-score, kind="stable")[:count]] += sign
    return rounded
