"""The gate: a verdict on a selection's metrics, and quota moved to the worst cells until it passes.

Set-like metrics (scope, variety, coverage) and histogram metrics (mismatch) are steered by quotas
over the codebook, never by row scores; additive and mean ones by the cells' own means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gio_spark.errors import InputError
from gio_spark.gime.quota_shift import Limits, shift
from gio_spark.gime.thresholds import ADDITIVE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.gime.thresholds import Threshold

SET_LIKE = ("scope", "variety", "coverage")
# Share of the budget that is moved at once at most.
_WIDEST = 0.3


@dataclass(frozen=True)
class Check:
    """One threshold judged.

    Attributes:
        metric: Name.
        value: Value of the selection, or None.
        bound: Bound (the lower one of a band).
        upper: Upper bound of a band, or None.
        direction: "more" or "less".
        kind: Kind of the threshold.
        passed: Whether it is met.
        why: What a reader is told.
    """

    metric: str
    value: float | None
    bound: float
    upper: float | None
    direction: str
    kind: str
    passed: bool
    why: str


@dataclass(frozen=True)
class Verdict:
    """The gate's answer.

    Attributes:
        passed: Whether every threshold is met.
        checks: One per threshold.
        notes: Failure signs, named.
        tries: Times that quota was moved before this verdict.
    """

    passed: bool
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()
    tries: int = 0

    @property
    def why(self) -> str:
        """Every failed threshold in one line each; a plain sentence if all passed."""
        failed = [c.why for c in self.checks if not c.passed]
        if failed:
            return "\n".join(failed)
        if not self.checks:
            return "No threshold is set: no metric was found worth pursuing, and none is by hand."
        return f"All {len(self.checks)} thresholds are met."

    def table(self) -> pd.DataFrame:
        """Checks as a table."""
        return pd.DataFrame([vars(c) for c in self.checks])


def robust(figures: pd.DataFrame, group: str) -> dict[str, float]:
    """Metric -> robust value of one group of a `metrics` table.

    Raises:
        InputError: There is no such group.
    """
    mine = figures[(figures["group"] == group) & (figures["form"] == "robust")]
    if mine.empty:
        raise InputError(f"No group {group!r}; there are {sorted(set(figures['group']))}.")
    return {m: v for m, v in zip(mine["metric"], mine["value"], strict=True) if pd.notna(v)}


def judge(
    values: Mapping[str, float],
    thresholds: Sequence[Threshold],
    *,
    score: float | None = None,
    full_score: float | None = None,
    repeats: Sequence[float] = (),
) -> Verdict:
    """Judge a selection's metrics.

    Args:
        values: Metric -> value of the selection (`robust`, or `Sample.metrics`).
        thresholds: What must be reached.
        score: Score of a model trained on the selection, where there is one.
        full_score: Score of a model trained on the full pool.
        repeats: Scores of repeated selections with other seeds.
    """
    checks = tuple(_check(t, values.get(t.metric)) for t in thresholds)
    return Verdict(
        all(c.passed for c in checks), checks, _failure_signs(checks, score, full_score, repeats)
    )


def _check(threshold: Threshold, value: float | None) -> Check:
    passed = threshold.met(value)
    sign = "at most" if threshold.direction == "less" else "at least"
    wanted = f"{sign} {threshold.bound:.6g}"
    if threshold.upper is not None:
        wanted = f"{threshold.bound:.6g} to {threshold.upper:.6g}"
    if value is None:
        why = f"{threshold.metric}: no value, {wanted} is asked for; give the columns it needs."
    elif passed:
        why = f"{threshold.metric}: {value:.6g}, {wanted} asked for."
    else:
        why = (
            f"{threshold.metric}: {value:.6g}, but {wanted} is asked for; the best seen at this "
            f"budget is {threshold.best:.6g}."
        )
    return Check(
        threshold.metric,
        value,
        threshold.bound,
        threshold.upper,
        threshold.direction,
        threshold.kind,
        passed,
        why,
    )


def _failure_signs(
    checks: Sequence[Check],
    score: float | None,
    full_score: float | None,
    repeats: Sequence[float],
) -> tuple[str, ...]:
    notes = []
    if score is not None and full_score and score < 0.95 * full_score:
        notes.append(
            f"The selection trains to {score / full_score:.1%} of the full pool: a metric of high "
            "sensitivity is probably missing from the profile, or the budget is too small."
        )
    if checks and not any(c.passed for c in checks):
        notes.append("No threshold passes at all: they are probably not attainable at this budget.")
    if len(repeats) > 2:
        middle = float(np.mean(repeats))
        spread = float(np.std(repeats, ddof=1))
        if middle and spread > 0.02 * abs(middle):
            notes.append(
                f"Repeated selections vary by {spread / abs(middle):.1%}: the thresholds of "
                "moderate metrics are probably too loose."
            )
    return tuple(notes)


@dataclass(frozen=True, eq=False)
class Cells:
    """What is known of each cell of the codebook.

    Attributes:
        sizes: Rows of the pool per cell, (K,).
        target: The target's mass per cell, (K,), sum 1; None without a target.
        means: Metric -> mean of the row's contribution per cell, (K,), for additive and mean ones.
        limits: What moved quota must keep; None: the number of rows.
        parts: Source -> the same of its rows alone, for metrics `source/metric`; their sizes may
            be those of a sample.
    """

    sizes: NDArray[np.int64]
    target: NDArray[np.float64] | None = None
    means: Mapping[str, NDArray[np.float64]] | None = None
    limits: Limits | None = None
    parts: Mapping[str, Cells] = field(default_factory=dict)

    def of(
        self, metric: str, take: NDArray[np.int64]
    ) -> tuple[Cells, str, NDArray[Any], NDArray[np.float64]]:
        """Cells that a metric reads, its plain name, and rows taken of them.

        The last array is how many rows of the whole pool stand for one row of those cells.
        """
        source, _, name = metric.rpartition("/")
        mine = self.parts.get(source)
        if mine is None:
            return self, metric, take, np.ones(self.sizes.size)
        share = mine.sizes / max(float(mine.sizes.sum()), 1.0)
        whole = self.sizes / max(float(self.sizes.sum()), 1.0)
        held = np.divide(share, whole, out=np.zeros(share.size), where=whole > 0)
        times = np.divide(1.0, held, out=np.zeros(share.size), where=held > 0)
        return mine, name, take * held, times


def urgency(metric: str, direction: str, take: NDArray[Any], cells: Cells) -> NDArray[Any]:
    """Per cell how much a further row there would help a metric (higher: take more there).

    Scope and variety: cells with the fewest rows taken against what they hold. Coverage and
    mismatch: cells where the target has more mass than the selection. Others: the cell's mean.
    """
    budget = max(float(take.sum()), 1.0)
    means = (cells.means or {}).get(metric)
    if metric in ("coverage", "mismatch") and cells.target is not None:
        return cells.target - take / budget
    if means is not None:
        return np.asarray(-means if direction == "less" else means, np.float64)
    held = cells.sizes > 0
    return np.where(held, 1.0 / held.sum() - take / budget, -np.inf)


def move_quota(
    take: NDArray[np.int64],
    metric: str,
    direction: str,
    cells: Cells,
    *,
    share: float = 0.02,
    keep_one: bool = False,
) -> NDArray[np.int64]:
    """Move a share of the budget from the cells that help a metric least to those that help most.

    Args:
        take: Rows taken per cell, (K,), or per cell and source, (K, S).
        metric: The failing metric.
        direction: "more" or "less".
        cells: Sizes, target mass, means, limits.
        share: Share of the budget to move.
        keep_one: Whether no cell is emptied; always so for a set-like metric.

    Returns:
        New rows per cell: never above what a cell holds, within the limits, and for a budget in
        rows of the same sum.
    """
    take = np.asarray(take, np.int64)
    counts = take if take.ndim == 1 else take.sum(axis=1)
    limits = cells.limits or Limits.of_rows(cells.sizes, int(take.sum()))
    mine, name, own, times = cells.of(metric, counts)
    need = np.where(mine.sizes > 0, urgency(name, direction, own, mine), -np.inf)
    target_like = name in ("coverage", "mismatch") and mine.target is not None
    evening = name in ("scope", "variety") and (mine.means or {}).get(name) is None
    most = None
    if target_like or evening:
        # No cell is filled beyond the share that it lacks.
        most = np.ceil(np.maximum(need, 0) * own.sum() * times).astype(np.int64)
    rows = take.reshape(len(take), -1)
    # In tokens a row given up makes room for another only if that is no longer: at least two go.
    least = float(limits.cost.max()) * (1 if (limits.cost == 1).all() else 2)
    amount = max(share * float(limits.spent(rows).sum()), least)
    # A set-like metric would lose what it wins if whole cells were emptied.
    keep_one = keep_one or name in SET_LIKE
    moved = shift(rows, need, amount, limits, most=most, keep_one=keep_one)
    return moved.reshape(take.shape)


def meet(
    take: NDArray[np.int64],
    cells: Cells,
    thresholds: Sequence[Threshold],
    measure: Callable[[NDArray[np.int64]], Mapping[str, float]],
    *,
    tries: int = 20,
    share: float = 0.02,
) -> tuple[NDArray[np.int64], Verdict]:
    """Move quota to the worst cells until the gate passes, or no move helps any more.

    Args:
        take: Rows taken per cell, (K,), or per cell and source, (K, S).
        cells: Sizes, target mass, means, limits.
        thresholds: What must be reached.
        measure: Recomputes the metrics for rows per cell.
        tries: Moves tried at most.
        share: Share of the budget moved at a time; halved when a move makes things worse.

    Returns:
        The best rows per cell found and their verdict; its `why` names what cannot be met, with
        the best value that can.
    """
    best = np.asarray(take, np.int64)
    values = measure(best)
    verdict = judge(values, thresholds)
    done = 0
    # A cell emptied for one metric is a cell lost to another.
    held = any(t.metric.rpartition("/")[2] in SET_LIKE for t in thresholds)
    stuck: set[str] = set()
    step = dict.fromkeys((t.metric for t in thresholds), share)
    while not verdict.passed and done < tries:
        failed = [c for c in verdict.checks if not c.passed and c.metric not in stuck]
        if not failed:
            break
        worst = max(failed, key=lambda c: _distance(thresholds, c))
        moved = move_quota(
            best, worst.metric, worst.direction, cells, share=step[worst.metric], keep_one=held
        )
        done += 1
        after = measure(moved)
        before, now = move_distance(values, thresholds), move_distance(after, thresholds)
        if not np.array_equal(moved, best) and now < before:
            best, values = moved, after
            verdict = judge(values, thresholds)
        elif now == before and step[worst.metric] < _WIDEST:
            # So small a move that it does not show, on a sample or on one source of several.
            step[worst.metric] *= 2
        elif step[worst.metric] < share / 4 or now == before:
            stuck.add(worst.metric)
        else:
            step[worst.metric] /= 2
    checks = tuple(
        c
        if c.passed
        else replace(c, why=f"{c.why} Moving quota between cells reached {c.value:.6g}.")
        if c.value is not None
        else c
        for c in verdict.checks
    )
    return best, replace(verdict, checks=checks, tries=done)


def _distance(thresholds: Sequence[Threshold], check: Check) -> float:
    threshold = next(t for t in thresholds if t.metric == check.metric)
    return _missing(threshold, check.value)


def _missing(threshold: Threshold, value: float | None) -> float:
    """How far a value is from its threshold, in units of the attainable range."""
    if threshold.met(value):
        return 0.0
    if value is None or not np.isfinite(value):
        return 1e6
    reach = abs(threshold.best - threshold.worst) or max(abs(threshold.bound), 1e-12)
    ends = [threshold.bound] + ([] if threshold.upper is None else [threshold.upper])
    return min(abs(value - end) for end in ends) / reach


def move_distance(values: Mapping[str, float], thresholds: Sequence[Threshold]) -> float:
    """How far values are from their thresholds in all; 0 where all are met."""
    return sum(_missing(t, values.get(t.metric)) for t in thresholds)


def cell_limits(
    thresholds: Sequence[Threshold], cells: Cells, budget: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Turn thresholds into least and most rows per cell, for the budgeted KL.

    Scope asks for one row in each of enough cells (those with the most target mass, or the
    largest); a mean or additive metric of high sensitivity closes the cells that are worse than
    the bound by more than the attainable range, where the rest can still meet the budget.

    Args:
        thresholds: What must be reached.
        cells: Sizes, target mass, means.
        budget: Rows to select.

    Returns:
        least, most: int64, (K,); least <= most <= sizes.
    """
    least = np.zeros(cells.sizes.size, np.int64)
    most = np.asarray(cells.sizes, np.int64).copy()
    for one in thresholds:
        means = (cells.means or {}).get(one.metric)
        if one.metric == "scope" and one.bound <= 1:
            wanted = min(int(np.ceil(one.bound * cells.sizes.size)), budget)
            worth = cells.sizes if cells.target is None else cells.target
            order = np.lexsort((-cells.sizes, -np.asarray(worth, np.float64)))
            chosen = [c for c in order if most[c] > 0][:wanted]
            least[chosen] = np.maximum(least[chosen], 1)
        elif means is not None and one.kind == "high":
            reach = abs(one.best - one.worst)
            if one.metric in ADDITIVE:
                means = means * budget
            bad = (
                means > one.bound + reach if one.direction == "less" else means < one.bound - reach
            )
            bad &= least == 0
            if int(most[~bad].sum()) >= budget:
                most[bad] = 0
    return np.minimum(least, most), most
