"""Allocations changed after the optimization: their divergence, certificate and bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gio_spark.gio.budgeted_kl import smoothed_path
from gio_spark.gio.budgeted_kl_objective import mean_tokens
from gio_spark.gio.selection_problem import Certificate, SelectionProblem, SelectionResult
from gio_spark.gio.source_limits import mixed_cost, source_bounds, source_cost


def with_allocation(
    problem: SelectionProblem, result: SelectionResult, take: NDArray, why: str
) -> SelectionResult:
    """Replace the allocation of a result and recompute its divergence and certificate.

    The divergence is that of the whole rows; the lower bound of the unconstrained optimum remains a
    lower bound.

    Args:
        problem: The problem that `result` solves.
        result: The plan.
        take: (K,) int64 rows per cluster, or (K, S) where the plan has rows per source.
        why: Reason of the reallocation, listed in `binding`; "{}" in it is replaced by the number
            of rows reallocated.

    Returns:
        The new result; `result` itself where the allocation is the same.
    """
    by_source = None if take.ndim == 1 else take
    before = result.take if result.take_by_source is None else result.take_by_source
    if np.array_equal(take, before):
        return result
    if by_source is None:
        counts, cost = take, mean_tokens(problem)
        spent = float(take.sum() if cost is None else take @ cost)
    else:
        rows = np.asarray(problem.source_counts, np.int64)
        price = source_cost(problem, rows)
        counts = take.sum(axis=1)
        cost = None if price is None else mixed_cost(take, price, rows)
        spent = float(counts.sum() if price is None else (take * price).sum())
    distribution = np.asarray(result.target_mass, np.float64)
    order, path = smoothed_path(distribution, counts, cost)
    divergence = float(path[-1]) if len(path) else float("inf")
    certificate = result.certificate
    if certificate is not None:
        certificate = Certificate(divergence, certificate.dual, divergence - certificate.dual)
    row_count = int(np.maximum(take - np.asarray(before), 0).sum())
    return replace(
        result, take=counts, fractional=counts.astype(np.float64), order=order,
        divergence_path=path, divergence=divergence, spent=spent, certificate=certificate,
        binding=(*result.binding, why.format(f"{row_count:,}")), take_by_source=by_source,
    )  # fmt: skip


def reallocation_bounds(
    problem: SelectionProblem, result: SelectionResult
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Bounds of a reallocation: rows, cost of a row, floors and caps.

    Returns:
        rows (K, S) int64, cost (K, S) float64, floor (S,), cap (S,), the last two as amounts in the
        budget's unit; S is 1 where sources are not bounded.

    Raises:
        ConfigError: Caps and floors contradict each other.
    """
    budget = float(np.floor(result.budget))
    if result.take_by_source is None:
        rows = np.asarray(problem.sizes, np.int64)
        tokens_per_row = mean_tokens(problem)
        cost = (
            np.ones(len(rows)) if tokens_per_row is None else np.asarray(tokens_per_row, np.float64)
        )
        return rows[:, None], cost[:, None], np.zeros(1), np.array([budget])
    counts = np.asarray(problem.source_counts, np.int64)
    price = source_cost(problem, counts)
    cap, floor = source_bounds(problem.source_names, problem.caps, problem.floors)
    floor_amount, cap_amount = np.ceil(floor * budget - 1e-9), np.floor(cap * budget + 1e-9)
    return counts, np.ones(counts.shape) if price is None else price, floor_amount, cap_amount
