"""Rows per cluster from a ranking of clusters, under a budget.

Objectives on points (published, k-NN, energy distance) rank clusters and know no sizes. All rows of
their clusters are selected, in order, until the budget is met; of the last cluster only some.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gio_spark.errors import BudgetError, ConfigError, InputError
from gio_spark.gio.budgeted_kl_objective import (
    REFUSE_LOST,
    empty_selection,
    lost_mass_notices,
    mean_tokens,
    target_distribution,
)
from gio_spark.gio.selection_problem import Notice, SelectionProblem, SelectionResult


def target_points(name: str, problem: SelectionProblem) -> NDArray:
    """Points of the target, (M, d) float64.

    Raises:
        ConfigError: The problem has no points, or has settings that this objective does not
            support.
    """
    if problem.target_centroids is None:
        raise ConfigError(f"The objective {name!r} needs target_centroids.")
    unsupported_settings = {
        "caps": bool(problem.caps),
        "floors": bool(problem.floors),
        "a replay share": problem.replay > 0,
        "quality weights": problem.quality is not None,
        "repeated rows": problem.repeat is not None,
    }
    unsupported = [
        name_of_setting for name_of_setting, is_set in unsupported_settings.items() if is_set
    ]
    if unsupported:
        raise ConfigError(
            f"The objective {name!r} cannot honour {', '.join(unsupported)}; use 'budgeted_kl' for "
            f"these, or unset them."
        )
    return np.asarray(problem.target_centroids, dtype=np.float64)


def usable_clusters(problem: SelectionProblem) -> NDArray:
    """Clusters with rows, ascending."""
    return np.flatnonzero(problem.capacity > 0)


def empty_if_out_of_reach(name: str, problem: SelectionProblem) -> SelectionResult | None:
    """Empty selection where the target is out of the pool's reach, else None."""
    if problem.unreachable > REFUSE_LOST:
        distribution, lost = target_distribution(problem)
        return empty_selection(name, problem, lost, distribution)
    return None


def from_order(
    name: str,
    problem: SelectionProblem,
    order: NDArray,
    path: NDArray,
    *,
    stopped: bool = False,
    notices: tuple[Notice, ...] = (),
) -> SelectionResult:
    """Result with entire clusters in `order` until the budget is met.

    Args:
        name: Name of the objective.
        problem: The problem that was solved.
        order: (c,) clusters, best first.
        path: (c,) divergence after each of them.
        stopped: Whether the objective stopped by itself at the end of `order`; the selection may
            then be smaller than the budget.
        notices: Notices of the objective itself.

    Raises:
        InputError: `order` and `path` differ in length.
        BudgetError: `order` has fewer rows than the budget and the objective did not stop itself.
    """
    if len(order) != len(path):
        raise InputError(f"order has {len(order)} entries and its path {len(path)}.")
    distribution, lost = target_distribution(problem)
    budget = problem.resolved_budget()
    sizes = np.asarray(problem.sizes, dtype=np.int64)
    cost = mean_tokens(problem)
    price = np.ones(len(sizes)) if cost is None else cost
    available = problem.capacity[order]
    before = np.concatenate(([0.0], np.cumsum(available)))[:-1]
    reachable = float(available.sum())
    if budget > reachable and not stopped:
        raise BudgetError(
            f"The budget is {budget:.0f} {problem.unit}, but the clusters picked hold "
            f"{reachable:.0f}.",
            largest=reachable,
        )
    room = np.clip(budget - before, 0.0, available)
    amount = np.where(
        room >= available, sizes[order], np.floor(room / np.maximum(price[order], 1e-300))
    )
    take = np.zeros(len(sizes), dtype=np.int64)
    take[order] = amount.astype(np.int64)
    is_taken = take[order] > 0
    order, path = order[is_taken], path[is_taken]
    result = SelectionResult(
        objective=name,
        take=take,
        fractional=take.astype(np.float64),
        order=order.astype(np.int64),
        divergence_path=path,
        divergence=float(path[-1]) if len(path) else float("inf"),
        target_mass=distribution,
        lost_mass=lost,
        budget=budget,
        unit=problem.unit,
        spent=float(take @ price),
        notices=(*lost_mass_notices(problem, lost), *notices),
    )
    if stopped and result.spent < budget:
        early_stop = Notice(
            "stopped_before_budget",
            f"The divergence stopped improving after {len(order)} clusters and "
            f"{result.spent:.0f} of {budget:.0f} {problem.unit}.",
            "Set stop='budget' to go on, or use the objective 'budgeted_kl'.",
        )
        result = replace(result, notices=(*result.notices, early_stop))
    return result
