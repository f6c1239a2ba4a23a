"""Selection by metrics: quotas per cell under the thresholds, the best rows inside cells.

Composes with the budgeted KL of gio: thresholds become least and most rows per cell, and the KL's
water-filling is solved within them, so that one plan satisfies both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gio_spark.errors import BudgetError
from gio_spark.gime.accumulators import DAY
from gio_spark.gime.gate import Cells, Verdict, cell_limits, meet
from gio_spark.kernels.rounding import largest_remainders

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.gime.subsets import Sample
    from gio_spark.gime.thresholds import Threshold


@dataclass(frozen=True, eq=False)
class Selected:
    """Rows selected by metrics.

    Attributes:
        rows: Their places in the sample, sorted.
        take: Rows per cell.
        verdict: The gate's verdict on them.
    """

    rows: NDArray[np.intp]
    take: NDArray[np.int64]
    verdict: Verdict


def bounded_kl(
    target: NDArray[np.float64],
    least: NDArray[np.int64],
    most: NDArray[np.int64],
    budget: int,
) -> NDArray[np.int64]:
    """Minimise KL(target || rows / budget) with least <= rows <= most and sum(rows) = budget.

    The optimum is rows_c = clip(lambda * target_c, least_c, most_c) (the KL is separable and
    convex, so the bounds' multipliers act cell by cell); lambda by bisection, then whole rows by
    largest remainder. Where the target's cells cannot hold the budget, the rest goes to the other
    cells in proportion to their room.

    Raises:
        BudgetError: The bounds do not allow the budget.
    """
    if not least.sum() <= budget <= most.sum():
        raise BudgetError(
            f"A budget of {budget} rows does not lie between the {int(least.sum())} and "
            f"{int(most.sum())} rows that the thresholds allow.",
            float(most.sum()),
        )
    p = np.asarray(target, np.float64)
    reachable = int(np.where(p > 0, most, least).sum())
    if reachable <= budget:
        rows = np.where(p > 0, most, least).astype(np.float64)
        room = (most - rows).clip(0)
        if room.sum() > 0:
            rows = rows + room * (budget - reachable) / room.sum()
    else:
        low, high = 0.0, float(budget) / max(float(p[p > 0].min()), 1e-300)
        for _ in range(200):
            middle = (low + high) / 2
            if np.clip(middle * p, least, most).sum() < budget:
                low = middle
            else:
                high = middle
        rows = np.clip(high * p, least, most)
    return _whole(rows, least, most, budget)


@dataclass(frozen=True, eq=False)
class MeanLimit:
    """A bound on the mean of a row's contribution to a metric.

    Attributes:
        means: Mean contribution per cell, (K,).
        bound: Bound on the mean over all rows selected.
        direction: "less": at most the bound; "more": at least.
    """

    means: NDArray[np.float64]
    bound: float
    direction: str

    @property
    def excess(self) -> NDArray[np.float64]:
        """How much a row of each cell adds to what must not be above zero, scaled to one."""
        sign = 1.0 if self.direction == "less" else -1.0
        away = sign * (np.asarray(self.means, np.float64) - self.bound)
        scale = float(np.abs(away).max())
        return away / scale if scale > 0 else away


def limited_kl(
    target: NDArray[np.float64],
    least: NDArray[np.int64],
    most: NDArray[np.int64],
    budget: int,
    limits: Sequence[MeanLimit] = (),
) -> NDArray[np.int64]:
    """Minimise KL(target || rows / budget) under bounds per cell and bounds on means.

    With multipliers nu of the budget and mu_k >= 0 of the mean limits, the optimum is
    rows_c = clip(target_c / (nu + sum_k mu_k a_kc), least_c, most_c), a_k the excess of limit k
    per row: the program is convex, and what limit k adds up to falls with mu_k. Each mu_k is found
    by bisection in turn, until none moves; then whole rows by largest remainder, so that a limit
    can be off by less than one row's part. A limit that no plan can meet is met as far as it can.

    Raises:
        BudgetError: The bounds do not allow the budget.
    """
    plain = bounded_kl(target, least, most, budget)
    excess = [one.excess for one in limits]
    if not any(float(plain @ a) > 0 for a in excess):
        return plain
    p = np.asarray(target, np.float64)
    if not int(least.sum()) < budget < int(np.where(p > 0, most, least).sum()):
        return plain
    price = np.zeros(len(excess))
    matrix = np.stack(excess)

    def rows_at(mu: NDArray[np.float64]) -> NDArray[np.float64]:
        pull = mu @ matrix
        low, high = -float(pull.max()) - 1.0, float(p.sum()) - float(pull.min()) + 1.0
        for _ in range(80):
            nu = (low + high) / 2
            if _filled(p, nu + pull, least, most).sum() > budget:
                low = nu
            else:
                high = nu
        return _filled(p, high + pull, least, most)

    for _ in range(8):
        before = price.copy()
        for at, a in enumerate(excess):
            low, high = 0.0, 1e-9
            price[at] = 0.0
            if float(rows_at(price) @ a) <= 0:
                continue
            # The scale of a price is that of a share per row; it grows until the limit holds.
            while high < 1e6:
                price[at] = high
                if float(rows_at(price) @ a) <= 0:
                    break
                high *= 8
            for _ in range(40):
                price[at] = (low + high) / 2
                if float(rows_at(price) @ a) > 0:
                    low = price[at]
                else:
                    high = price[at]
            price[at] = high
        if np.allclose(before, price, rtol=1e-3, atol=0):
            break
    return _whole(rows_at(price), least, most, budget)


def _filled(
    p: NDArray[np.float64],
    price: NDArray[np.float64],
    least: NDArray[np.int64],
    most: NDArray[np.int64],
) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        wanted = np.where(price > 0, p / price, np.where(p > 0, np.inf, 0.0))
    return np.clip(np.where(p > 0, wanted, 0.0), least, most)


def _whole(
    rows: NDArray[np.float64], least: NDArray[np.int64], most: NDArray[np.int64], budget: int
) -> NDArray[np.int64]:
    """Round to whole rows by largest remainder, within the bounds."""
    return largest_remainders(rows, budget, least=least, most=most)


def row_scores(sample: Sample) -> dict[str, NDArray[np.float64]]:
    """Metric -> contribution of each row, for metrics that are sums or means over rows.

    Scope, variety, coverage and mismatch have none: they belong to sets of rows.
    """
    rows = sample.rows
    found: dict[str, NDArray[np.float64]] = {}

    def filled(role: str) -> NDArray[np.float64]:
        column = rows[role]
        middle = float(np.median(column.kept())) if column.valid.any() else 0.0
        return np.where(column.valid, column.values, middle).astype(np.float64)

    if "tokens" in rows:
        found["volume"] = np.where(rows["tokens"].valid, rows["tokens"].values, 0).astype(float)
    if "distance" in rows:
        found["granularity"] = filled("distance")
    if "quality" in rows:
        found["distortion"] = 1.0 - filled("quality")
    if "event_time" in rows and "ingest_time" in rows:
        found["delay"] = (filled("ingest_time") - filled("event_time")) / DAY
    fields = [role for role in rows.columns if ":" in role]
    if fields and "distortion" not in found:
        gone = np.stack([~rows[role].valid for role in fields]).mean(axis=0)
        found["distortion"] = gone
        if "volume" not in found:
            found["volume"] = 1.0 - gone
    return {name: values for name, values in found.items() if values.std() > 0}


def cell_means(
    sample: Sample, cells: NDArray[np.int64], count: int
) -> dict[str, NDArray[np.float64]]:
    """Metric -> mean of its rows' contributions per cell, (count,).

    Cells without a row in the sample are given the mean of all.
    """
    sizes = np.bincount(cells, minlength=count)
    found = {}
    for metric, values in row_scores(sample).items():
        if metric == "volume" and "tokens" not in sample.rows:
            continue
        summed = np.bincount(cells, values, count)
        found[metric] = np.where(sizes > 0, summed / np.maximum(sizes, 1), values.mean())
    return found


def select(
    sample: Sample,
    cells: NDArray[np.int64],
    size: int,
    thresholds: Sequence[Threshold],
    wanted: Mapping[str, str],
    directions: Mapping[str, int],
    *,
    target_mass: NDArray[np.float64] | None = None,
    seed: int = 0,
    tries: int = 12,
) -> Selected:
    """Select rows: quotas per cell, the best rows inside cells, then the gate.

    Args:
        sample: Rows of the pool.
        cells: Cell per row, (n,).
        size: Rows to select.
        thresholds: What the selection must reach.
        wanted: Metric -> class of the metrics to pursue (`pursued`).
        directions: 1 where more is better, -1 where less is.
        target_mass: Mass per cell to follow (K,): that of the budgeted KL, to satisfy both; by
            default the target's, if mismatch or coverage matter, else the pool's, evened out if
            scope or variety matter.
        seed: Seed of ties and of the noise that keeps rows of equal score apart.
        tries: Moves of quota tried at most.

    Raises:
        BudgetError: More rows than there are.
    """
    sizes = np.bincount(cells, minlength=0 if target_mass is None else len(target_mass))
    if size > len(cells):
        raise BudgetError(f"{size} rows cannot be selected from {len(cells)}.", len(cells))
    known = _target_share(sample, sizes.size)
    if target_mass is None:
        target_mass = _aim(sizes, known, wanted)
    scores = row_scores(sample)
    order = _row_order(scores, cells, wanted, directions, seed)
    laid_out = Cells(sizes, known, cell_means(sample, cells, sizes.size))
    least, most = cell_limits(thresholds, laid_out, size)
    take = bounded_kl(target_mass, least, most, size)
    starts = np.r_[0, np.cumsum(sizes)]

    def pick(quota: NDArray[np.int64]) -> NDArray[np.intp]:
        parts = [order[s : s + q] for s, q in zip(starts[:-1], quota, strict=True)]
        return np.sort(np.concatenate(parts))

    take, verdict = meet(
        take, laid_out, thresholds, lambda quota: sample.metrics(pick(quota)), tries=tries
    )
    return Selected(pick(take), take, verdict)


def _target_share(sample: Sample, cells: int) -> NDArray[np.float64] | None:
    if not sample.target or "cells" not in sample.target:
        return None
    counted = sample.target["cells"]["cells"]
    share = np.zeros(cells)
    inside = counted[0] < cells
    share[counted[0][inside]] = counted[1][inside]
    total = share.sum()
    return share / total if total > 0 else None


def _aim(
    sizes: NDArray[np.int64], known: NDArray[np.float64] | None, wanted: Mapping[str, str]
) -> NDArray[np.float64]:
    """Mass per cell that the metrics of high or moderate sensitivity ask for."""
    if known is not None and ("mismatch" in wanted or "coverage" in wanted):
        return known
    mass = sizes.astype(np.float64)
    if wanted.get("scope") == "high" or wanted.get("variety") == "high":
        mass = np.sqrt(mass)
    return mass / mass.sum()


def _row_order(
    scores: Mapping[str, NDArray[np.float64]],
    cells: NDArray[np.int64],
    wanted: Mapping[str, str],
    directions: Mapping[str, int],
    seed: int,
) -> NDArray[np.intp]:
    """Rows ordered by cell, the best of each cell first."""
    rng = np.random.default_rng(seed)
    # Gumbel noise of unit size: rows are drawn with odds exp(score), not ranked, so that a cell's
    # rare rows keep a chance.
    total = rng.gumbel(size=len(cells))
    strength = {"high": 2.0, "moderate": 0.7}
    for metric, values in scores.items():
        if metric in wanted:
            standard = (values - values.mean()) / values.std()
            total += strength[wanted[metric]] * directions.get(metric, 0) * standard
    return np.lexsort((-total, cells))
