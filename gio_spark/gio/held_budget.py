"""Budget of a plan held on a pool that has changed: the same problem on the present counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from gio_spark.errors import BudgetError
from gio_spark.gio.budgeted_kl import integer_plan
from gio_spark.gio.budgeted_kl_objective import mean_tokens, select_budgeted_kl
from gio_spark.gio.reallocation import with_allocation
from gio_spark.gio.selection_problem import Notice, SelectionProblem, SelectionResult

# The largest budget is found in at most this many steps: pool, reach of the target, caps.
_TRIES = 4


def hold_budget(problem: SelectionProblem, quotas: ArrayLike | None = None) -> SelectionResult:
    """Allocation of a plan's budget over the present rows of the pool.

    Clusters are filled in proportion to the target mass until they are full, so that what a
    cluster lacks is spread over the others by water-filling, and a cluster that has grown is
    filled up again.

    Args:
        problem: Present sizes and counts, and the budget as an amount. Its target mass is the
            target distribution of the plan (quality and replay included), its `unreachable` the
            share of the target that the plan lost.
        quotas: (K,) rows per cluster of a plan that is no optimum of the KL: of another objective,
            or changed for thresholds of metrics. They take the place of the target mass. Plans with
            rows per source follow the target mass.

    Returns:
        The plan. Where the pool no longer holds the budget, it has the largest one that is
        possible, and a notice `budget_short`.

    Raises:
        BudgetError: No budget is possible, for example because a source with a floor is gone.

    Example:
        >>> import numpy as np
        >>> problem = SelectionProblem(
        ...     pool_centroids=np.zeros((3, 2), np.float32), sizes=np.array([40, 500, 1000]),
        ...     target_mass=np.array([0.5, 0.4, 0.1]), budget=100,
        ... )
        >>> hold_budget(problem).take
        array([40, 48, 12])
        >>> hold_budget(problem, [60, 20, 20]).take
        array([40, 30, 30])
    """
    asked = float(problem.budget)
    result = _solve(problem)
    if result.budget < asked and result.budget > 0:
        text = (
            f"The budget is {asked:,.0f} {problem.unit}, but the present pool allows "
            f"{result.budget:,.0f}: the clusters of the target have no more, or a cap or floor of "
            "a source binds."
        )
        remedy = "Add rows of the target's kind, lower the budget, or run again."
        result = replace(result, notices=(*result.notices, Notice("budget_short", text, remedy)))
    if quotas is None or result.take_by_source is not None or not result.take.any():
        return result
    sizes, cost = np.asarray(problem.sizes, np.int64), mean_tokens(problem)
    price = np.ones(len(sizes)) if cost is None else cost
    # Weights in the budget's unit, for which the plan's own rows are the optimum.
    mass = np.where(sizes > 0, np.asarray(quotas, np.float64) * price, 0.0)
    amount = min(result.budget, float(price[mass > 0] @ sizes[mass > 0]))
    take = integer_plan(mass, sizes, amount, cost=cost)
    rest = result.budget - float(take @ price)
    if amount < result.budget and rest > 0:
        # Clusters without a quota are used where those with one are full.
        take = take + integer_plan(result.target_mass, sizes - take, rest, cost=cost)
    return with_allocation(
        problem, result, take, "the plan's rows per cluster are held, not the KL"
    )


def _solve(problem: SelectionProblem) -> SelectionResult:
    """Solve with the budget, or with the largest one that is possible."""
    for _ in range(_TRIES):
        try:
            return select_budgeted_kl(problem)
        except BudgetError as error:
            largest = error.largest
            if largest is None or largest < 1 or largest >= float(problem.budget):
                raise
            problem = replace(problem, budget=float(largest))
    return select_budgeted_kl(problem)
