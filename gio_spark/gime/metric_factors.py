"""Factors of metrics that change together in all subsets, and maxima inside a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_VIF = 10.0


@dataclass(frozen=True, eq=False)
class Factor:
    """Metrics that change together in all subsets, as one standardized number.

    Attributes:
        metrics: Their names.
        signs: Sign with which each enters, so that they agree with the first.
        mean: Mean of each over the screen.
        spread: Standard deviation of each over the screen.
        vif: Largest variance inflation among them before merging.
    """

    metrics: tuple[str, ...]
    signs: NDArray[np.float64]
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    vif: float

    @property
    def name(self) -> str:
        """The metrics' names joined by "+"."""
        return "+".join(self.metrics)

    def value(self, table: pd.DataFrame) -> NDArray[np.float64]:
        """Value of the factor for rows of metrics, (n,); a single metric has its own unit."""
        raw = table[list(self.metrics)].to_numpy(float)
        if len(self.metrics) == 1:
            return raw[:, 0]
        return ((raw - self.mean) / self.spread * self.signs).mean(axis=1)


def inflation(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance inflation factor of each column (n, m)."""
    if values.shape[1] < 2:
        return np.ones(values.shape[1])
    correlation = np.atleast_2d(np.corrcoef(values.T)) + 1e-9 * np.eye(values.shape[1])
    return np.asarray(np.diag(np.linalg.pinv(correlation)))


def merged_factors(table: pd.DataFrame, limit: float = MAX_VIF) -> list[Factor]:
    """Merge correlated columns until no variance inflation is above the limit.

    Args:
        table: Metrics as achieved, one row per subset; constant columns are left out.
        limit: Largest variance inflation allowed.
    """
    names = [str(c) for c in table.columns if table[c].notna().all() and table[c].std() > 1e-12]
    raw = table[names].to_numpy(float)
    groups = [[index] for index in range(len(names))]
    worst = dict(enumerate(inflation(raw).tolist()))
    standard = (raw - raw.mean(axis=0)) / raw.std(axis=0)

    def column(group: list[int]) -> NDArray[np.float64]:
        first = standard[:, group[0]]
        signs = [1.0 if float(first @ standard[:, g]) >= 0 else -1.0 for g in group]
        return (standard[:, group] * signs).mean(axis=1)

    while len(groups) > 1:
        values = np.stack([column(g) for g in groups], axis=1)
        if inflation(values).max() <= limit:
            break
        related = np.abs(np.corrcoef(values.T))
        np.fill_diagonal(related, 0)
        a, b = sorted(np.unravel_index(int(related.argmax()), related.shape))
        groups[a] = sorted(groups[a] + groups.pop(b))
    factors = []
    for group in groups:
        first = standard[:, group[0]]
        signs = np.array([1.0 if float(first @ standard[:, g]) >= 0 else -1.0 for g in group])
        factors.append(
            Factor(
                tuple(names[g] for g in group),
                signs,
                raw[:, group].mean(axis=0),
                raw[:, group].std(axis=0),
                max(worst[g] for g in group),
            )
        )
    return factors


def turning_point(
    value: NDArray[np.float64], score: NDArray[np.float64]
) -> tuple[float, float, float] | None:
    """Maximum inside the sweep, and the band around it, or None.

    A parabola is fitted; it counts as a turning point when its curvature is negative at 99 %, its
    top lies between the 15th and 85th percentile of the values, and the score rises before it and
    falls behind it, each at 95 % (Simonsohn 2018's two lines: a response that merely levels off
    bends a parabola as well). The band is where the parabola stays within one standard error of
    the residuals below its top.
    """
    from scipy import stats

    is_finite = np.isfinite(score)
    x, y = value[is_finite], score[is_finite]
    if x.size < 8 or x.std() == 0:
        return None
    z = (x - x.mean()) / x.std()
    design = np.stack([np.ones_like(z), z, z * z], axis=1)
    coefficients, *_ = np.linalg.lstsq(design, y, rcond=None)
    residuals = y - design @ coefficients
    freedom = x.size - 3
    sigma = float(np.sqrt(residuals @ residuals / freedom))
    error = sigma * float(np.sqrt(np.linalg.pinv(design.T @ design)[2, 2]))
    if coefficients[2] >= 0 or coefficients[2] > -stats.t.ppf(0.99, freedom) * error:
        return None
    top = -coefficients[1] / (2 * coefficients[2])
    if not np.quantile(z, 0.15) < top < np.quantile(z, 0.85):
        return None
    if not (_slope_is(z[z <= top], y[z <= top], 1) and _slope_is(z[z >= top], y[z >= top], -1)):
        return None
    half = float(np.sqrt(max(sigma, 1e-12) / -coefficients[2]))
    low, mid, high = (float(x.mean() + x.std() * p) for p in (top - half, top, top + half))
    return mid, low, high


def _slope_is(x: NDArray[np.float64], y: NDArray[np.float64], sign: int) -> bool:
    """Whether a line through the points rises (sign 1) or falls (-1) at 95 %, one-sided."""
    from scipy import stats

    if x.size < 4 or np.ptp(x) == 0:
        return False
    fitted = stats.linregress(x, y, alternative="greater" if sign > 0 else "less")
    return bool(fitted.pvalue < 0.05)
