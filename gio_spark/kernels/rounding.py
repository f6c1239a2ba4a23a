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
    """Round numbers down, then give what is missing to the largest remainders.

    Of equal remainders the first counts. Where bounds allow no such sum, what they allow comes out.

    Args:
        exact: (n,) numbers, at least 0.
        total: Sum to reach.
        least: (n,) lower bounds, or one for all.
        most: (n,) upper bounds; None: there are none.
        slack: Numbers so little below a whole one count as that.

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
    whole = np.clip(np.floor(exact + slack).astype(np.int64), low, high)
    while whole.sum() != total:
        sign = 1 if whole.sum() < total else -1
        open_ = whole < high if sign > 0 else whole > low
        if not open_.any():
            break
        score = np.where(open_, sign * (exact - whole), -np.inf)
        many = min(abs(int(total - whole.sum())), int(open_.sum()))
        whole[np.argsort(-score, kind="stable")[:many]] += sign
    return whole
