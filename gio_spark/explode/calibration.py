"""From raw scores of unseen rows to log density ratios, and how well these are calibrated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gio_spark.explode.keys import LOG_RATIO_LIMIT

FloatArray = npt.NDArray[np.float64]
_NEWTON_STEPS = 50


@dataclass(frozen=True)
class Calibration:
    """How far the log ratios of held-out sample rows can be believed.

    Attributes:
        low, high: Range of the log ratio in each bin, shape (b,).
        target_rows, pool_rows: Held-out rows per bin, shape (b,).
        predicted: Share of target that the ratio says (both sides weighted to one half), (b,).
        observed: Share of target that is there, (b,).
        auc: Probability that a target row scores above a pool row (one half: no difference).
        log_loss: Mean log loss in nats, both sides weighted to one half (0.693: no difference).
        slope: Factor that the raw scores were multiplied by.
    """

    low: FloatArray
    high: FloatArray
    target_rows: npt.NDArray[np.int64]
    pool_rows: npt.NDArray[np.int64]
    predicted: FloatArray
    observed: FloatArray
    auc: float
    log_loss: float
    slope: float

    @property
    def error(self) -> float:
        """Mean distance of predicted and observed shares, weighted by rows."""
        rows = self.target_rows + self.pool_rows
        gap = np.abs(self.predicted - self.observed)
        return float((gap * rows).sum() / max(1, rows.sum()))

    def table(self) -> dict[str, npt.NDArray]:
        """Return the bins as named columns of equal length."""
        return {
            "log_ratio_low": self.low,
            "log_ratio_high": self.high,
            "target_rows": self.target_rows,
            "pool_rows": self.pool_rows,
            "predicted_target_share": self.predicted,
            "observed_target_share": self.observed,
        }


def fit_slope(target: FloatArray, pool: FloatArray, *, largest: float) -> float:
    """Return the factor that makes held-out raw scores log odds, between 0 and `largest`.

    Logistic regression of side on score (Platt 1999, with his smoothed labels), both sides
    weighted alike. A score that says nothing about the side gets a factor near 0, and one that
    points the wrong way gets 0: then the ratio is flat and rows are taken at random.

    Args:
        target: Raw scores of held-out target rows, shape (n,).
        pool: Raw scores of held-out pool rows, shape (m,).
        largest: Upper bound of the factor.
    """
    score = np.concatenate([target, pool])
    centre, spread = float(score.mean()), float(score.std())
    if spread <= 0 or not np.isfinite(spread):
        return 0.0
    x = (score - centre) / spread
    n, m = target.size, pool.size
    label = np.concatenate([np.full(n, (n + 1) / (n + 2)), np.full(m, 1 / (m + 2))])
    weight = np.concatenate([np.full(n, 0.5 / n), np.full(m, 0.5 / m)])
    a = b = 0.0
    for _ in range(_NEWTON_STEPS):
        p = 1.0 / (1.0 + np.exp(-(a * x + b)))
        slack = weight * (p - label)
        curve = weight * p * (1 - p)
        gradient = np.array([(slack * x).sum(), slack.sum()])
        off = (curve * x).sum()
        hessian = np.array([[(curve * x * x).sum() + 1e-9, off], [off, curve.sum() + 1e-9]])
        step = np.linalg.solve(hessian, gradient)
        # Far from the optimum the curvature is tiny: a bounded step cannot overshoot.
        step /= max(1.0, float(np.abs(step).max()) / 2.0)
        a, b = a - float(step[0]), b - float(step[1])
        if float(np.abs(step).max()) < 1e-9:
            break
    return float(np.clip(a / spread, 0.0, largest))


def fold_offsets(scaled: FloatArray, fold: npt.NDArray[np.int64], folds: int) -> FloatArray:
    """Return what to add to each fold's scores so that the pool mean of exp(score) is 1.

    Folds come from different models; without this their scores would not share a scale, and a
    ranking across folds would compare models instead of rows.

    Args:
        scaled: Held-out scores of pool rows, shape (m,).
        fold: Fold of each, shape (m,).
        folds: Number of folds F.

    Returns:
        Float64 (F,); a fold without rows gets the offset of all rows together.
    """

    def offset(values: FloatArray) -> float:
        top = float(values.max())
        return -(top + float(np.log(np.exp(values - top).mean())))

    every = offset(scaled)
    return np.array(
        [offset(scaled[fold == f]) if (fold == f).any() else every for f in range(folds)]
    )


def measure(target: FloatArray, pool: FloatArray, *, slope: float, bins: int = 10) -> Calibration:
    """Compare log ratios of held-out rows with what is there.

    Args:
        target: Log ratios of held-out target rows, shape (n,).
        pool: Log ratios of held-out pool rows, shape (m,).
        slope: Kept for the record.
        bins: Number of bins, cut at quantiles of both sides weighted alike.
    """
    n, m = target.size, pool.size
    score = np.concatenate([target, pool])
    weight = np.concatenate([np.full(n, 0.5 / n), np.full(m, 0.5 / m)])
    is_target = np.arange(n + m) < n
    order = np.argsort(score, kind="stable")
    position = np.cumsum(weight[order]) - weight[order] / 2
    edges = np.unique(np.interp(np.linspace(0, 1, bins + 1)[1:-1], position, score[order]))
    index = np.searchsorted(edges, score, side="right")
    share = 1.0 / (1.0 + np.exp(-np.clip(score, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)))
    used = np.unique(index)
    mass = np.bincount(index, weight)[used]
    clipped = np.clip(share, 1e-12, 1 - 1e-12)
    loss = -np.where(is_target, np.log(clipped), np.log1p(-clipped))
    return Calibration(
        low=np.array([score[index == b].min() for b in used]),
        high=np.array([score[index == b].max() for b in used]),
        target_rows=np.bincount(index[is_target], minlength=edges.size + 1)[used].astype(np.int64),
        pool_rows=np.bincount(index[~is_target], minlength=edges.size + 1)[used].astype(np.int64),
        predicted=np.bincount(index, weight * share)[used] / mass,
        observed=np.bincount(index, weight * is_target)[used] / mass,
        auc=_auc(target, pool),
        log_loss=float((weight * loss).sum()),
        slope=slope,
    )


def _auc(target: FloatArray, pool: FloatArray) -> float:
    ordered = np.sort(pool)
    below = np.searchsorted(ordered, target, side="left")
    upto = np.searchsorted(ordered, target, side="right")
    return float((below + upto).mean() / (2 * pool.size))
