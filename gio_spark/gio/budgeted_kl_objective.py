"""The objective "budgeted_kl": rows per cluster, and target mass without a counterpart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gio_spark.errors import BudgetError, EmptySelectionError
from gio_spark.gio.budgeted_kl import budgeted_kl, integer_plan, smoothed_path
from gio_spark.gio.selection_problem import (
    Certificate,
    Notice,
    SelectionProblem,
    SelectionResult,
    objective,
)
from gio_spark.gio.source_limits import select_with_sources

#: Share of the target that may be lost (out of reach, empty clusters) before a warning.
WARN_LOST = 0.05
#: Share of the target lost from which nothing is selected.
REFUSE_LOST = 0.95


# Mean rows of a cluster below which the distances of its rows say little of its width.
FEW_ROWS_PER_CLUSTER = 5


def target_distribution(problem: SelectionProblem) -> tuple[NDArray, float]:
    """Target distribution of a selection and the share of the target that is lost.

    It is the target's distribution, conditional on the clusters that have rows, weighted by
    quality and mixed with `replay` of the pool's own distribution. Lost mass is reported, never
    spread over other clusters.

    Returns:
        (K,) float64 with sum 1 (0 where nothing is left), and the lost share, 0 to 1.
    """
    mass = np.asarray(problem.target_mass, dtype=np.float64)
    available = problem.capacity
    total = float(mass.sum())
    usable = np.where(available > 0, mass, 0.0)
    on_empty = 1.0 - float(usable.sum()) / total if total > 0 else 1.0
    lost = problem.unreachable + (1.0 - problem.unreachable) * max(0.0, on_empty)
    if problem.quality is not None:
        usable = usable * np.asarray(problem.quality, dtype=np.float64)
    distribution = usable / usable.sum() if usable.sum() > 0 else np.zeros(len(mass))
    if problem.replay > 0 and distribution.any():
        distribution = (
            1.0 - problem.replay
        ) * distribution + problem.replay * available / available.sum()
    return distribution, min(1.0, lost)


def lost_mass_notices(problem: SelectionProblem, lost: float) -> tuple[Notice, ...]:
    """Notices about target mass that no pool row can represent."""
    if lost <= WARN_LOST:
        return ()
    is_refused = lost > REFUSE_LOST
    sizes = np.asarray(problem.sizes)
    rows, clusters = int(sizes.sum()), int((sizes > 0).sum())
    remedy = (
        "Check that pool and target went through the same embedder and columns; add pool "
        "data of the missing kind; or accept that this part of the target is not covered."
    )
    if rows < FEW_ROWS_PER_CLUSTER * clusters:
        remedy = (
            f"The pool's {rows:,} rows lie in {clusters:,} clusters, {rows / clusters:.1f} rows "
            "each: too few to tell how far a cluster reaches. Use at most "
            f"{max(1, rows // 10):,} clusters (quantize.clusters), or auto."
        )
    return (
        Notice(
            "target_out_of_reach" if is_refused else "target_partly_out_of_reach",
            f"{lost:.1%} of the target has no counterpart in the pool "
            f"({problem.unreachable:.1%} lies too far from every pool cluster, the rest falls on "
            f"clusters without rows)."
            + (" Nothing is selected." if is_refused else " The plan follows the remaining part."),
            remedy,
        ),
    )


def empty_selection(
    name: str, problem: SelectionProblem, lost: float, distribution: NDArray
) -> SelectionResult:
    """Empty selection, for a target without a counterpart in the pool."""
    clusters = len(distribution)
    return SelectionResult(
        objective=name,
        take=np.zeros(clusters, dtype=np.int64),
        fractional=np.zeros(clusters),
        order=np.zeros(0, dtype=np.int64),
        divergence_path=np.zeros(0),
        divergence=float("inf"),
        target_mass=distribution,
        lost_mass=lost,
        budget=0.0,
        unit=problem.unit,
        spent=0.0,
        notices=lost_mass_notices(problem, lost),
    )


def mean_tokens(problem: SelectionProblem) -> NDArray | None:
    """Mean tokens of a row per cluster, (K,), or None for a budget in rows."""
    if problem.unit == "rows":
        return None
    return problem.capacity / np.maximum(1, np.asarray(problem.sizes))


@objective("budgeted_kl")
def select_budgeted_kl(problem: SelectionProblem) -> SelectionResult:
    """Solve the budgeted KL and round it to whole rows.

    Raises:
        BudgetError: The budget is above the rows of the target's clusters and no replay share is
            set, or caps and floors do not allow it; `largest` is the largest budget that works.
        EmptySelectionError: The quality weights of all the target's clusters are 0.
    """
    distribution, lost = target_distribution(problem)
    if lost > REFUSE_LOST:
        return empty_selection("budgeted_kl", problem, lost, distribution)
    if not distribution.any():
        raise EmptySelectionError(
            "Every cluster that the target reaches has quality weight 0, so nothing is left to "
            "select. Check the quality column."
        )
    budget = problem.resolved_budget()
    available = problem.capacity
    reachable = float(available[distribution > 0].sum())
    if isinstance(problem.budget, str):
        budget = min(budget, reachable)
        if budget < 1:
            return replace(
                empty_selection("budgeted_kl", problem, lost, distribution), notices=_auto_zero()
            )
    if budget > reachable:
        raise BudgetError(
            f"The budget is {budget:.0f} {problem.unit}, but the clusters that the target "
            f"reaches hold {reachable:.0f}. Ask for at most {reachable:.0f}, or set a replay "
            f"share, which lets rows of other clusters in.",
            largest=reachable,
        )
    if problem.caps or problem.floors:
        return select_with_sources(
            problem, distribution, lost, budget, lost_mass_notices(problem, lost)
        )
    optimum = budgeted_kl(distribution, available, budget)
    cost = mean_tokens(problem)
    fractional = optimum.rows if cost is None else _per_row(optimum.rows, cost)
    take = integer_plan(distribution, np.asarray(problem.sizes), budget, cost=cost)
    order, path = smoothed_path(distribution, take, cost)
    is_full = (optimum.rows >= available) & (available > 0) & (distribution > 0)
    binding = []
    if is_full.any():
        binding.append(
            f"capacity: {int(is_full.sum())} of {int((distribution > 0).sum())} clusters are "
            f"taken whole ({distribution[is_full].sum():.1%} of the target's mass)"
        )
    return SelectionResult(
        objective="budgeted_kl",
        take=take,
        fractional=fractional,
        order=order,
        divergence_path=path,
        divergence=optimum.divergence,
        target_mass=distribution,
        lost_mass=lost,
        budget=budget,
        unit=problem.unit,
        spent=float(take.sum() if cost is None else take @ cost),
        certificate=Certificate(optimum.divergence, optimum.dual, optimum.gap),
        binding=tuple(binding),
        notices=(*lost_mass_notices(problem, lost), *_rounding_notices(distribution, take)),
    )


def _per_row(amount: NDArray, cost: NDArray) -> NDArray:
    return np.divide(amount, cost, out=np.zeros_like(amount), where=cost > 0)


def _auto_zero() -> tuple[Notice, ...]:
    return (
        Notice(
            "auto_selects_nothing",
            "No part of the pool, however small, was found to have the target's law.",
            "Check that pool and target describe the same kind of data, or set a budget in rows.",
        ),
    )


def _rounding_notices(distribution: NDArray, take: NDArray) -> tuple[Notice, ...]:
    missed_mass = float(distribution[(distribution > 0) & (take == 0)].sum())
    if missed_mass <= WARN_LOST:
        return ()
    return (
        Notice(
            "budget_too_small_for_clusters",
            f"Clusters with {missed_mass:.1%} of the target's mass get no row, because the budget "
            f"has fewer rows than they need.",
            "Use fewer clusters or a larger budget.",
        ),
    )
