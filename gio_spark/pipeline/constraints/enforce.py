"""Enforcement of metric thresholds on a plan: first the order of rows inside clusters, then quotas.

The rows of the plan are measured by all eleven metrics. Where a sum or mean over rows misses its
threshold, a score bias changes which rows inside clusters are taken. Quotas enforce what still
fails: the budgeted KL is solved within the limits of the thresholds, then quota is reallocated to
the clusters that help most. The effect of a reallocation on the metrics is computed on a bounded
sample and corrected by the metrics of the rows themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from gio_spark import gime, gio
from gio_spark.gime.metric_gate import threshold_distance
from gio_spark.gime.metric_thresholds import additive
from gio_spark.pipeline.constraints import sensitivity_runs
from gio_spark.pipeline.constraints.profile_sample import ProfileSample
from gio_spark.pipeline.constraints.required_rows import extremes, room_for
from gio_spark.pipeline.constraints.score_bias import READS, Order, pulled
from gio_spark.pipeline.run_context import RunContext
from gio_spark.pipeline.run_records import GateFacts
from gio_spark.pipeline.run_rows import RunRows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    from gio_spark.pipeline.constraints.sensitivity_runs import SensitivityResult

_TRIES = 20
# Share of the attainable range that a plan aims beyond each bound; doubled after a miss.
_MARGIN = 0.01


@dataclass(frozen=True, eq=False)
class Enforcement:
    """Thresholds in force, and the context of their enforcement.

    Attributes:
        ctx: The run.
        run_rows: Its tables.
        pool_rows: Usable rows of the pool.
        sensitivity: Outcome of the sensitivity runs, where thresholds come from them.
    """

    ctx: RunContext
    run_rows: RunRows
    pool_rows: int
    sensitivity: SensitivityResult | None

    @cached_property
    def views(self) -> dict[str | None, ProfileSample]:
        """The whole pool (None), and each source that has thresholds of its own."""
        sources = {n.rpartition("/")[0] for n in self.ctx.settings.gime.thresholds}
        parts = [p for p in self.run_rows.parts() if p.source is None or p.source in sources]
        return {part.source: ProfileSample(part) for part in parts}

    def same_size(self, rows: int) -> bool:
        """Whether the thresholds are for subsets as large as a plan of so many rows."""
        if len(self.views) > 1:
            return False
        if self.sensitivity is not None:
            return self.sensitivity.facts.size == rows
        sample = self.views[None].sample.rows.count
        return sensitivity_runs.subset_size(self.ctx.settings, sample, self.pool_rows) == rows

    @cached_property
    def thresholds_and_random(self) -> tuple[list[gime.Threshold], dict[str, float]]:
        """Thresholds for subsets, and metrics of random subsets of that size."""
        thresholds: list[gime.Threshold] = []
        random_metrics: dict[str, float] = {}
        if self.sensitivity is not None:
            gime_settings = self.ctx.settings.gime
            level = gime_settings.performance_level or 1.0
            thresholds, _ = gime.automatic_thresholds(
                self.sensitivity.analysis,
                self.sensitivity.directions,
                level=level,
                manual_shares=gime_settings.manual_shares(),
            )
            random_metrics |= self.sensitivity.facts.random_metrics
        for source, view in self.views.items():
            shares = self.ctx.settings.gime.manual_shares(source)
            if not shares or (source is None and self.sensitivity is not None):
                continue
            named, random = self._reached(view, shares)
            thresholds += named
            random_metrics |= random
        return thresholds, random_metrics

    def _reached(
        self, view: ProfileSample, shares: Mapping[str, float]
    ) -> tuple[list[gime.Threshold], dict[str, float]]:
        """Manual thresholds of one view, from the range of random tilts."""
        settings, named = self.ctx.settings, view.run_rows.named
        directions = view.sample.directions()
        size = sensitivity_runs.subset_size(settings, view.sample.rows.count, self.pool_rows)
        ranges = gime.ranges_without_labels(
            view.sample, directions, size=size, subsets=settings.gime.screen, seed=settings.seed
        )
        thresholds = gime.manual_thresholds(ranges, directions, shares)
        random = {named(r["metric"]): float(r["random"]) for r in ranges.to_dict("records")}
        return [replace(t, metric=named(t.metric)) for t in thresholds], random


def judge(gate: GateFacts, figures: Mapping[str, Mapping[str, float]]) -> gime.Verdict:
    """Judge measured rows by stored thresholds.

    Args:
        gate: Thresholds of a plan.
        figures: Metric -> value of "selected", and of "random" rows, as many.
    """
    verdict = gime.judge(figures["selected"], thresholds_for(gate, figures["random"]))
    return replace(verdict, tries=gate.moved)


def thresholds_for(gate: GateFacts, random: Mapping[str, float]) -> list[gime.Threshold]:
    """A plan's thresholds for selections whose random draws have these metrics."""
    thresholds = list(gate.thresholds)
    return gime.rescaled_thresholds(thresholds, gate.here, random) if gate.rescale else thresholds


def enforce(
    enforcement: Enforcement,
    result: gio.SelectionResult,
    problem: gio.SelectionProblem,
    keep: Callable[[NDArray[np.int64], Order], DataFrame],
) -> tuple[gio.SelectionResult, GateFacts]:
    """Enforce the thresholds on a plan.

    Args:
        enforcement: Thresholds in force.
        result: The plan without them.
        problem: What it solves.
        keep: Rows per cluster (and source, where the plan has them) and their order inside
            clusters -> ids of the selected rows.

    Returns:
        The plan that holds them as far as can be, and the facts of the gate.
    """
    settings = enforcement.ctx.settings
    thresholds, random_metrics = enforcement.thresholds_and_random
    take = np.asarray(result.take, np.int64)
    if result.take_by_source is not None:
        take = np.asarray(result.take_by_source, np.int64)
    budget = int(take.sum())
    gate = GateFacts(
        thresholds=tuple(thresholds),
        here=random_metrics,
        # A subset as large as the selection needs no other bound.
        rescale=not enforcement.same_size(budget),
        level=settings.gime.performance_level,
        notes=enforcement.sensitivity.analysis.notes if enforcement.sensitivity else (),
    )
    if enforcement.sensitivity is not None and all(t.kind == "by hand" for t in thresholds):
        result = _with_notice(result, _nothing_pursued(enforcement.sensitivity))
    if not thresholds:
        return result, gate
    blind = [v for v in enforcement.views.values() if v.clusters is None]
    if blind:
        notice = gio.Notice(
            "thresholds_are_only_judged",
            f"The profile {blind[0].run_rows.profile.name} knows no cells to move quota between.",
            "Judge the gate's verdict.",
        )
        return _with_notice(result, notice), gate
    sizes = np.asarray(problem.sizes, np.int64)
    pair = _Pair(enforcement, keep, sizes)
    rows, cost, floor, cap = gio.reallocation_bounds(problem, result)
    if settings.gime.moves:
        required_rows = extremes(
            thresholds, {s: view.run_rows for s, view in enforcement.views.items()}
        )
        pair.order = Order(required_rows=required_rows)

    def with_required(plan: NDArray[np.int64]) -> NDArray[np.int64]:
        return room_for(pair.order.required_rows, plan, cost, problem.source_names)

    planned, take = take, with_required(take)
    figures = pair.measure(take)
    bounds = thresholds_for(gate, figures["random"])
    # A plan may have fewer rows than its budget (duplicates of picks): it keeps their number.
    amount = float(budget) if problem.unit == "rows" else float(np.floor(result.budget))
    limits = gime.QuotaLimits(rows, cost, amount, floor, cap)
    cluster_stats = pair.cluster_stats(_target_distribution(result), limits)
    # The KL is solved within the thresholds for a budget in rows alone; under prices of tokens and
    # bounds on sources, quota moves from its optimum.
    free = take.ndim == 1 and problem.unit == "rows"
    if settings.gime.moves:
        # Columns of the user's own that profiles read are not in the assignments.
        fixed = {m for m, roles in READS.items() if set(roles) & set(settings.gime.columns)}
        if problem.unit != "rows":
            # A plan knows the mean tokens of clusters alone: longer rows would pass its budget.
            fixed.add("volume")
        samples = {source: view.sample for source, view in enforcement.views.items()}
        score_biases, figures = pulled(
            bounds,
            figures,
            samples,
            lambda p: pair.measure(take, replace(pair.order, score_biases=p)),
            fixed=fixed,
        )
        pair.order = replace(pair.order, score_biases=score_biases)
    best, best_short = (take, figures), threshold_distance(figures["selected"], bounds)
    margin, reallocations = _MARGIN, 0
    for _ in range(settings.gime.moves if best_short > 0 else 0):
        # A forecast that just meets a bound misses it half of the time.
        inside = [t.tightened(margin) for t in bounds]
        reallocated = _within(inside, cluster_stats, *best, result) if free else best[0]
        reallocated, _verdict = gime.meet_thresholds(
            reallocated, cluster_stats, inside, pair.forecast(*best), tries=_TRIES
        )
        reallocated = with_required(reallocated)
        margin *= 2
        if np.array_equal(reallocated, best[0]):
            break
        reallocations += 1
        figures = pair.measure(reallocated)
        short = threshold_distance(figures["selected"], bounds)
        if short < best_short:
            best, best_short = (reallocated, figures), short
        if best_short == 0:
            break
    note_template = "thresholds of the metrics moved {} rows between clusters"
    gate = gate.model_copy(
        update={
            "moved": reallocations,
            "rows_moved": int(np.maximum(best[0] - planned, 0).sum()),
            "score_biases": pair.order.score_biases,
            "required_rows": pair.order.required_rows,
        }
    )
    result = gio.with_allocation(problem, result, best[0], note_template)
    if pair.order.score_biases:
        to = ", ".join(f"{one.metric} (weight {one.weight:g})" for one in pair.order.score_biases)
        binding_note = f"thresholds of the metrics pulled rows inside clusters towards {to}"
        result = replace(result, binding=(*result.binding, binding_note))
    return result, gate


def _nothing_pursued(sensitivity: SensitivityResult) -> gio.Notice:
    facts = sensitivity.facts
    return gio.Notice(
        "gime_level_changes_nothing",
        "The sensitivity runs found no metric of high sensitivity whose improvement makes models "
        f"better (random subsets {facts.random_score[0]:.4g}, full sample {facts.full_score:.4g} "
        f"by {facts.measure}): the plan is the one without gime.level.",
        "Leave gime.level out, or set gime.thresholds by hand where you know what matters.",
    )


def _with_notice(result: gio.SelectionResult, notice: gio.Notice) -> gio.SelectionResult:
    return replace(result, notices=(*result.notices, notice))


def _target_distribution(result: gio.SelectionResult) -> NDArray[np.float64] | None:
    target_distribution = np.asarray(result.target_mass, np.float64)
    return (
        target_distribution / target_distribution.sum() if target_distribution.sum() > 0 else None
    )


def _within(
    bounds: Sequence[gime.Threshold],
    cluster_stats: gime.ClusterStats,
    take: NDArray[np.int64],
    figures: Mapping[str, Mapping[str, float]],
    result: gio.SelectionResult,
) -> NDArray[np.int64]:
    """Solve the budgeted KL within the thresholds; the plan as it is where they do not bind.

    The metrics of a plan's rows differ from the means of their clusters by the choice inside
    clusters, so bounds on means are shifted by that difference.
    """
    budget = int(take.sum())
    # Which clusters scope asks for is left to the plan where it occupies enough of them already.
    binding_bounds = [
        t for t in bounds if t.metric != "scope" or not t.met(figures["selected"].get("scope"))
    ]
    least, most = gime.cluster_bounds(binding_bounds, cluster_stats, budget)
    limits, met = [], bool((least <= take).all() and (take <= most).all())
    for one in bounds:
        means = (cluster_stats.means or {}).get(one.metric)
        value = figures["selected"].get(one.metric)
        if means is None or value is None:
            continue
        met = met and one.met(value)
        scale = budget if additive(one.metric) else 1
        away = value / scale - float(take @ means) / budget
        ends = [(one.bound, one.direction)]
        if one.upper is not None:
            ends = [(one.bound, "more"), (one.upper, "less")]
        limits += [gime.MeanLimit(means, end / scale - away, way) for end, way in ends]
    possible = least.sum() <= budget <= most.sum()
    if met or not possible or result.objective != "budgeted_kl" or cluster_stats.target is None:
        return take
    return gime.limited_kl(cluster_stats.target, least, most, budget, limits)


class _Pair:
    """Metrics of selected and random rows, measured, and forecast on a sample.

    Attributes:
        order: Of the rows inside clusters, once it is determined.
    """

    def __init__(
        self,
        enforcement: Enforcement,
        keep: Callable[[NDArray[np.int64], Order], DataFrame],
        sizes: NDArray[np.int64],
    ) -> None:
        self._views = list(enforcement.views.values())
        self._sizes = sizes
        self._keep = keep
        self._random: dict[str, float] = {}
        self.order = Order()

    def measure(
        self, take: NDArray[np.int64], order: Order | None = None
    ) -> dict[str, dict[str, float]]:
        """Measure the rows that a plan selects, and (once) a random draw of the same size."""
        ids = self._keep(take, order or self.order).select("id")
        first = not self._random
        selected: dict[str, float] = {}
        for view in self._views:
            view_metrics = view.measure(ids, random=first)
            selected |= view_metrics["selected"]
            self._random |= view_metrics.get("random", {})
        return {"selected": selected, "random": self._random}

    def forecast(
        self, take: NDArray[np.int64], figures: Mapping[str, Mapping[str, float]]
    ) -> Callable[[NDArray[np.int64]], dict[str, float]]:
        """Forecast of metrics from rows per cluster: by the sample, corrected by measured rows."""
        measured, sampled = figures["selected"], self._sampled(take)

        def forecast(quota: NDArray[np.int64]) -> dict[str, float]:
            metrics = {}
            for name, value in self._sampled(quota).items():
                if name not in measured or name not in sampled:
                    continue
                if additive(name):
                    metrics[name] = (
                        value * measured[name] / sampled[name] if sampled[name] else measured[name]
                    )
                else:
                    metrics[name] = value + measured[name] - sampled[name]
            return metrics

        return forecast

    def cluster_stats(
        self, target_distribution: NDArray[np.float64] | None, limits: gime.QuotaLimits
    ) -> gime.ClusterStats:
        """Statistics of each cluster, by source where sources have thresholds."""
        count = self._sizes.size
        stats_by_source = {
            view.run_rows.source: view.cluster_statistics(count) for view in self._views
        }
        parts = {source: known for source, known in stats_by_source.items() if source is not None}
        return gime.ClusterStats(
            self._sizes, target_distribution, stats_by_source[None].means, limits, parts
        )

    def _sampled(self, take: NDArray[np.int64]) -> dict[str, float]:
        # Sources of a cluster count as alike here; what was measured corrects it.
        take = take if take.ndim == 1 else take.sum(axis=1)
        metrics: dict[str, float] = {}
        for view in self._views:
            metrics |= view.what_if(take, self._sizes)
        return metrics
