"""Repetition of rows: what copies of a row are worth, and how many copies a price buys.

A copy of a row is worth less than another row of its kind. By the data-constrained scaling law of
Muennighoff et al. (2023, arXiv 2305.16264), r copies of N different rows are worth

    e(r) = r for r <= N,    N (1 + R (1 - exp(-(r/N - 1) / R))) beyond,

with R about 15. e is concave and its slope is continuous at N, so that the budgeted KL stays a
separable concave problem: one price for all clusters, and a dual bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from gio_spark.errors import ConfigError


@dataclass(frozen=True)
class Repetition:
    """Limit and worth of repeated rows.

    Attributes:
        most: Largest number of copies of a row.
        decay: R of the scaling law: after R repeats of all rows a copy is worth 1/e of a new row.

    Example:
        >>> import numpy as np
        >>> repetition = Repetition(most=4, decay=15.0)
        >>> repetition.effective_rows(np.array([50.0, 100.0, 400.0]), np.array([100.0])).round(1)
        array([ 50. , 100. , 371.9])
    """

    most: int = 4
    decay: float = 15.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: A value is out of range.
        """
        if self.most < 1 or not self.decay > 0:
            raise ConfigError(
                f"Rows repeat {self.most} times with decay {self.decay}; the first must be at "
                "least 1, the second above 0."
            )

    def effective_rows(self, copies: NDArray, fresh: NDArray) -> NDArray:
        """Number of different rows that copies are worth, float64.

        Args:
            copies: Copies, 0 or more.
            fresh: Different rows that they are copies of, above 0.
        """
        excess = np.maximum(copies / fresh - 1.0, 0.0)
        repeated = fresh * (1.0 - self.decay * np.expm1(-excess / self.decay))
        return np.where(copies <= fresh, copies, repeated)

    def copies_at(
        self, share: NDArray, fresh: NDArray, price: float | NDArray, *, smoothing: float = 0.0
    ) -> NDArray:
        """Copies at which one more is worth the price: p e'(r) / (e(r) + smoothing) = price.

        Args:
            share: (K,) target distribution, above 0.
            fresh: (K,) different rows (or tokens), above 0.
            price: Price of a copy.
            smoothing: Rows added to e(r).

        Returns:
            (K,) float64, between 0 and `most` times `fresh`.
        """
        ratio = price / share
        # Beyond N, e' = exp(-u / R) = x with u = r/N - 1, and e = N (1 + R - R x): solved for x.
        slope = (
            ratio * (fresh * (1.0 + self.decay) + smoothing) / (1.0 + ratio * fresh * self.decay)
        )
        with np.errstate(divide="ignore"):
            repeated = fresh * (1.0 - self.decay * np.log(np.minimum(slope, 1.0)))
            copies = np.where(slope < 1.0, repeated, 1.0 / ratio - smoothing)
        return np.clip(copies, 0.0, self.most * fresh)

    def fill(self, share: NDArray, fresh: NDArray, budget: float) -> tuple[NDArray, float]:
        """Copies that maximize sum p_c log e_c(r_c) with sum r_c = B, and the price of a copy.

        Args:
            share: (K,) target distribution, above 0.
            fresh: (K,) different rows (or tokens), above 0.
            budget: B, at most `most` times the sum of `fresh`.
        """
        capacity = self.most * fresh
        last_slope = np.exp(-(self.most - 1.0) / self.decay)
        full_price = float((share * last_slope / self.effective_rows(capacity, fresh)).min())
        if budget >= capacity.sum():
            return capacity, full_price

        def excess(log_price: float) -> float:
            return float(self.copies_at(share, fresh, np.exp(log_price)).sum()) - budget

        # r <= p / price, so that the price 1/B buys at most B; a little more room for rounding.
        low, high = np.log(full_price) - 1e-6, -np.log(budget) + 1e-6
        price = float(np.exp(brentq(excess, low, high, xtol=1e-15, rtol=1e-15)))
        copies = self.copies_at(share, fresh, price)
        is_open = (copies > 0) & (copies < capacity)
        remaining = budget - float(copies.sum())
        if is_open.any():
            copies[is_open] *= 1.0 + remaining / float(copies[is_open].sum())
        return np.minimum(copies, capacity), price
