"""The objective "budgeted_kl": quotas per cluster, and the cases a naive version is silent on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gio_spark.errors import BudgetError, EmptySelectionError
from gio_spark.gio.budgeted_kl import budgeted_kl, integer_plan, smoothed_path
from gio_spark.gio.problem import (
    Certificate,
    Notice,
    SelectionProblem,
    SelectionResult,
    register,
)
from gio_spark.gio.sources import select_with_sources

#: Share of the target that may be lost (out of reach, empty clusters) before a warning.
WARN_LOST = 0.05
#: Share of the target lost from which nothing is selected.
REFUSE_LOST = 0.95


def target_law(problem: SelectionProblem) -> tuple[NDArray, float]:
    """Return the law to aim at and the share of the target that is lost.

    The law is the target's, conditional on the clusters that hold rows, weighted by quality and
    mixed with `replay` of the pool's own law. Lost mass is reported, never spread.

    Returns:
        (K,) float64 with sum 1 (0 where nothing is left), and the lost share, 0 to 1.
    """
    mass = np.asarray(problem.target_mass, dtype=np.float64)
    held = problem.capacity
    total = float(mass.sum())
    usable = np.where(held > 0, mass, 0.0)
    on_empty = 1.0 - float(usable.sum()) / total if total > 0 else 1.0
    lost = problem.unreachable + (1.0 - problem.unreachable) * max(0.0, on_empty)
    if problem.quality is not None:
        usable = usable * np.asarray(problem.quality, dtype=np.float64)
    law = usable / usable.sum() if usable.sum() > 0 else np.zeros(len(mass))
    if problem.replay > 0 and law.any():
        law = (1.0 - problem.replay) * law + problem.replay * held / held.sum()
    return law, min(1.0, lost)


def lost_notices(problem: SelectionProblem, lost: float) -> tuple[Notice, ...]:
    """Return what the user must know about target mass that no pool row can stand for."""
    if lost <= WARN_LOST:
        return ()
    refused = lost > REFUSE_LOST
    return (
        Notice(
            "target_out_of_reach" if refused else "target_partly_out_of_reach",
            f"{lost:.1%} of the target has no counterpart in the pool "
            f"({problem.unreachable:.1%} lies too far from every pool cluster, the rest falls on "
            f"clusters without rows)."
            + (" Nothing is selected." if refused else " The plan follows the remaining part."),
            "Check that pool and target went through the same embedder and columns; add pool "
            "data of the missing kind; or accept that this part of the target is not covered.",
        ),
    )


def nothing(name: str, problem: SelectionProblem, lost: float, law: NDArray) -> SelectionResult:
    """Return the empty selection, for a target that the pool cannot serve."""
    clusters = len(law)
    return SelectionResult(
        objective=name,
        take=np.zeros(clusters, dtype=np.int64),
        fractional=np.zeros(clusters),
        order=np.zeros(0, dtype=np.int64),
        divergence_path=np.zeros(0),
        divergence=float("inf"),
        target_mass=law,
        lost_mass=lost,
        budget=0.0,
        unit=problem.unit,
        spent=0.0,
        notices=lost_notices(problem, lost),
    )


def mean_tokens(problem: SelectionProblem) -> NDArray | None:
    """Return the mean tokens of a row per cluster, or None for a budget in rows."""
    if problem.unit == "rows":
        return None
    return problem.capacity / np.maximum(1, np.asarray(problem.sizes))


@register("budgeted_kl")
def select_budgeted_kl(problem: SelectionProblem) -> SelectionResult:
    """Solve the budgeted KL with its four cases, and round to whole rows.

    Raises:
        BudgetError: the budget is above what the target's clusters hold and no replay share is
            set, or caps and floors contradict it; `largest` is the largest budget that works.
        EmptySelectionError: the quality weights leave nothing of the target.
    """
    law, lost = target_law(problem)
    if lost > REFUSE_LOST:
        return nothing("budgeted_kl", problem, lost, law)
    if not law.any():
        raise EmptySelectionError(
            "Every cluster that the target reaches has quality weight 0, so nothing is left to "
            "select. Check the quality column."
        )
    budget = problem.resolved_budget()
    held = problem.capacity
    reach = float(held[law > 0].sum())
    if isinstance(problem.budget, str):
        budget = min(budget, reach)
        if budget < 1:
            return replace(nothing("budgeted_kl", problem, lost, law), notices=_auto_zero())
    if budget > reach:
        raise BudgetError(
            f"The budget is {budget:.0f} {problem.unit}, but the clusters that the target "
            f"reaches hold {reach:.0f}. Ask for at most {reach:.0f}, or set a replay share, which "
            f"lets rows of other clusters in.",
            largest=reach,
        )
    if problem.caps or problem.floors:
        return select_with_sources(problem, law, lost, budget, lost_notices(problem, lost))
    optimum = budgeted_kl(law, held, budget)
    cost = mean_tokens(problem)
    fractional = optimum.rows if cost is None else _per_row(optimum.rows, cost)
    take = integer_plan(law, np.asarray(problem.sizes), budget, cost=cost)
    order, path = smoothed_path(law, take, cost)
    full = (optimum.rows >= held) & (held > 0) & (law > 0)
    binding = []
    if full.any():
        binding.append(
            f"capacity: {int(full.sum())} of {int((law > 0).sum())} clusters are taken whole "
            f"({law[full].sum():.1%} of the target's mass)"
        )
    return SelectionResult(
        objective="budgeted_kl",
        take=take,
        fractional=fractional,
        order=order,
        divergence_path=path,
        divergence=optimum.divergence,
        target_mass=law,
        lost_mass=lost,
        budget=budget,
        unit=problem.unit,
        spent=float(take.sum() if cost is None else take @ cost),
        certificate=Certificate(optimum.divergence, optimum.dual, optimum.gap),
        binding=tuple(binding),
        notices=(*lost_notices(problem, lost), *_rounding_notices(law, take)),
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


def _rounding_notices(law: NDArray, take: NDArray) -> tuple[Notice, ...]:
    missed = float(law[(law > 0) & (take == 0)].sum())
    if missed <= WARN_LOST:
        return ()
    return (
        Notice(
            "budget_too_small_for_clusters",
            f"Clusters with {missed:.1%} of the target's mass get no row, because the budget has "
            f"fewer rows than they need.",
            "Use fewer clusters or a larger budget.",
        ),
    )
