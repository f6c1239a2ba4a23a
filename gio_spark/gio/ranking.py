"""From an ordered list of clusters to whole rows under a budget.

Objectives on points (published, k-NN, energy distance) rank clusters and know no sizes. Their
clusters are taken whole, in order, until the budget is met; the last one in part.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gio_spark.errors import BudgetError, ConfigError, InputError
from gio_spark.gio.budgeted_kl_objective import (
    REFUSE_LOST,
    lost_notices,
    mean_tokens,
    nothing,
    target_law,
)
from gio_spark.gio.problem import Notice, SelectionProblem, SelectionResult


def needs_points(name: str, problem: SelectionProblem) -> NDArray:
    """Return the target's points as float64.

    Raises:
        ConfigError: the problem has none, or asks for what this objective cannot honour.
    """
    if problem.target_centroids is None:
        raise ConfigError(f"The objective {name!r} needs target_centroids.")
    asked = {
        "caps": bool(problem.caps),
        "floors": bool(problem.floors),
        "a replay share": problem.replay > 0,
        "quality weights": problem.quality is not None,
    }
    beyond = [what for what, wanted in asked.items() if wanted]
    if beyond:
        raise ConfigError(
            f"The objective {name!r} cannot honour {', '.join(beyond)}; use 'budgeted_kl' for "
            f"these, or unset them."
        )
    return np.asarray(problem.target_centroids, dtype=np.float64)


def usable_clusters(problem: SelectionProblem) -> NDArray:
    """Return the clusters that hold rows, ascending."""
    return np.flatnonzero(problem.capacity > 0)


def refused(name: str, problem: SelectionProblem) -> SelectionResult | None:
    """Return the empty selection where the target is out of the pool's reach, else None."""
    if problem.unreachable > REFUSE_LOST:
        law, lost = target_law(problem)
        return nothing(name, problem, lost, law)
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
    """Take clusters whole in `order` until the budget is met.

    Args:
        name: name of the objective.
        problem: the problem solved.
        order: clusters, best first.
        path: divergence after each of them.
        stopped: the objective chose to stop at the end of `order`; less than the budget is fine.
        notices: what the objective has to say itself.

    Raises:
        BudgetError: `order` holds less than the budget and the objective did not stop by itself.
    """
    if len(order) != len(path):
        raise InputError(f"order has {len(order)} entries and its path {len(path)}.")
    law, lost = target_law(problem)
    budget = problem.resolved_budget()
    sizes = np.asarray(problem.sizes, dtype=np.int64)
    cost = mean_tokens(problem)
    price = np.ones(len(sizes)) if cost is None else cost
    held = problem.capacity[order]
    before = np.concatenate(([0.0], np.cumsum(held)))[:-1]
    reachable = float(held.sum())
    if budget > reachable and not stopped:
        raise BudgetError(
            f"The budget is {budget:.0f} {problem.unit}, but the clusters picked hold "
            f"{reachable:.0f}.",
            largest=reachable,
        )
    room = np.clip(budget - before, 0.0, held)
    amount = np.where(room >= held, sizes[order], np.floor(room / np.maximum(price[order], 1e-300)))
    take = np.zeros(len(sizes), dtype=np.int64)
    take[order] = amount.astype(np.int64)
    kept = take[order] > 0
    order, path = order[kept], path[kept]
    result = SelectionResult(
        objective=name,
        take=take,
        fractional=take.astype(np.float64),
        order=order.astype(np.int64),
        divergence_path=path,
        divergence=float(path[-1]) if len(path) else float("inf"),
        target_mass=law,
        lost_mass=lost,
        budget=budget,
        unit=problem.unit,
        spent=float(take @ price),
        notices=(*lost_notices(problem, lost), *notices),
    )
    if stopped and result.spent < budget:
        early = Notice(
            "stopped_before_budget",
            f"The divergence stopped improving after {len(order)} clusters and "
            f"{result.spent:.0f} of {budget:.0f} {problem.unit}.",
            "Set stop='budget' to go on, or use the objective 'budgeted_kl'.",
        )
        result = replace(result, notices=(*result.notices, early))
    return result
