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
    available = np.where(problem.fresh_amounts > 0, problem.capacity, 0.0)
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
    fresh, repeat = problem.fresh_amounts, problem.repeat
    once = float(fresh[distribution > 0].sum())
    reachable = once if repeat is None else repeat.most * once
    if isinstance(problem.budget, str):
        budget = min(budget, reachable)
        if budget < 1:
            return replace(
                empty_selection("budgeted_kl", problem, lost, distribution), notices=_auto_zero()
            )
    if budget > reachable:
        raise BudgetError(_above_reach(problem, budget, once), largest=reachable)
    if problem.caps or problem.floors:
        return select_with_sources(
            problem, distribution, lost, budget, lost_mass_notices(problem, lost)
        )
    optimum = budgeted_kl(distribution, fresh, budget, repeat=repeat)
    cost = mean_tokens(problem)
    fractional = optimum.rows if cost is None else _per_row(optimum.rows, cost)
    rows = np.asarray(problem.sizes)
    if repeat is not None and problem.fresh is not None:
        rows = np.minimum(rows, problem.fresh)
    take = integer_plan(distribution, rows, budget, cost=cost, repeat=repeat)
    order, path = smoothed_path(distribution, take, cost)
    return SelectionResult(
        objective="budgeted_kl",
        take=take if repeat is None else np.minimum(take, rows),
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
        binding=_binding(problem, distribution, optimum.rows),
        notices=(*lost_mass_notices(problem, lost), *_rounding_notices(distribution, take)),
        copies=None if repeat is None else take,
    )


def _above_reach(problem: SelectionProblem, budget: float, once: float) -> str:
    """Message for a budget above what the target's clusters hold."""
    repeat, unit = problem.repeat, problem.unit
    held = f"hold {once:.0f}"
    largest = once
    if repeat is not None:
        largest = repeat.most * once
        held += f" that may be taken, {largest:.0f} with every row {repeat.most} times"
    remedies = [f"Ask for at most {largest:.0f}"]
    if problem.replay == 0:
        remedies.append("set a replay share, which lets rows of other clusters in")
    if repeat is None:
        remedies.append("let rows repeat (select.repeat)")
    return (
        f"The budget is {budget:.0f} {unit}, but the clusters that the target reaches {held}. "
        f"{', or '.join(remedies)}."
    )


def _binding(problem: SelectionProblem, distribution: NDArray, rows: NDArray) -> tuple[str, ...]:
    """Active constraints of the optimum, each in a phrase."""
    fresh, repeat = problem.fresh_amounts, problem.repeat
    in_target = (fresh > 0) & (distribution > 0)
    most = 1 if repeat is None else repeat.most
    phrases = []
    is_repeated = in_target & (rows > fresh * (1 + 1e-9))
    if is_repeated.any():
        phrases.append(
            f"repetition: rows of {int(is_repeated.sum())} clusters repeat "
            f"({distribution[is_repeated].sum():.1%} of the target's mass)"
        )
    is_full = in_target & (rows >= most * fresh)
    if is_full.any():
        times = "" if most == 1 else f", every row {most} times"
        phrases.append(
            f"capacity: {int(is_full.sum())} of {int((distribution > 0).sum())} clusters are "
            f"taken whole ({distribution[is_full].sum():.1%} of the target's mass){times}"
        )
    return tuple(phrases)


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
