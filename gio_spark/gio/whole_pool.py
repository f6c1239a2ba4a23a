"""The objective "whole_pool": no quotas, the rows that rank highest in the whole pool."""

from __future__ import annotations

import numpy as np

from gio_spark.errors import ConfigError
from gio_spark.gio.budgeted_kl import smoothed_path
from gio_spark.gio.budgeted_kl_objective import lost_mass_notices, target_distribution
from gio_spark.gio.ranking import empty_if_out_of_reach
from gio_spark.gio.selection_problem import SelectionProblem, SelectionResult, objective


@objective("whole_pool")
def select_whole_pool(problem: SelectionProblem) -> SelectionResult:
    """Take of each cluster what the ranking of all rows takes of it.

    Args:
        problem: Its `options["take"]` has the rows of each cluster, (K,) int64, among those that
            rank highest in the whole pool (`explode.rank_whole_pool`); budgets are in rows.

    Raises:
        ConfigError: The problem has no such rows, or has settings that know no ranking.

    Example:
        >>> problem = SelectionProblem(
        ...     pool_centroids=np.zeros((2, 1), np.float32), sizes=np.array([10, 10]),
        ...     target_mass=np.array([0.5, 0.5]), budget=3, options={"take": np.array([3, 0])},
        ... )
        >>> result = select_whole_pool(problem)
        >>> result.take, result.certificate
        (array([3, 0]), None)
    """
    take = problem.options.get("take")
    if take is None:
        raise ConfigError(
            "The objective 'whole_pool' needs options['take'], the rows that the ranking of all "
            "rows takes of each cluster (gio_spark.explode.rank_whole_pool)."
        )
    restrictions = {
        "caps": bool(problem.caps),
        "floors": bool(problem.floors),
        "a replay share": problem.replay > 0,
        "quality weights": problem.quality is not None,
        "repeated rows": problem.repeat is not None,
        "a budget in tokens": problem.unit == "tokens",
    }
    names = [name for name, is_set in restrictions.items() if is_set]
    if names:
        raise ConfigError(
            f"The objective 'whole_pool' cannot honour {', '.join(names)}; use 'budgeted_kl' for "
            "these, or unset them."
        )
    empty = empty_if_out_of_reach("whole_pool", problem)
    if empty is not None:
        return empty
    distribution, lost = target_distribution(problem)
    rows = np.asarray(take, np.int64)
    order, path = smoothed_path(distribution, rows, None)
    return SelectionResult(
        objective="whole_pool",
        take=rows,
        fractional=rows.astype(np.float64),
        order=order,
        divergence_path=path,
        divergence=float(path[-1]) if len(path) else float("inf"),
        target_mass=distribution,
        lost_mass=lost,
        budget=problem.resolved_budget(),
        unit="rows",
        spent=float(rows.sum()),
        notices=lost_mass_notices(problem, lost),
    )
