"""The objective "budgeted_kl" under caps and floors per source."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gio_spark.errors import BudgetError, ConfigError
from gio_spark.gio.budgeted_kl import smoothed_path
from gio_spark.gio.selection_problem import Certificate, Notice, SelectionProblem, SelectionResult
from gio_spark.gio.source_dual import solve_with_prices
from gio_spark.gio.source_rounding import whole_rows, whole_totals
from gio_spark.gio.source_tokens import token_rows

#: A price below this (the price of a row is about 1) does not count as binding.
NO_PRICE = 1e-6


def source_bounds(
    names: Sequence[str], caps: Mapping[str, float], floors: Mapping[str, float]
) -> tuple[NDArray, NDArray]:
    """Caps and floors as shares (S,) per source, 1 and 0 where none is set.

    Raises:
        ConfigError: They contradict each other.
    """
    cap = np.array([float(caps.get(name, 1.0)) for name in names])
    floor = np.array([float(floors.get(name, 0.0)) for name in names])
    for name, high, low in zip(names, cap, floor, strict=True):
        if low > high:
            raise ConfigError(f"Source {name!r} has a floor of {low} above its cap of {high}.")
    if floor.sum() > 1.0 + 1e-12:
        raise ConfigError(f"The floors add up to {floor.sum():.3f}; they may reach 1 at most.")
    if cap.sum() < 1.0 - 1e-12:
        raise ConfigError(f"The caps add up to {cap.sum():.3f}, so no budget can be filled.")
    return cap, floor


def largest_budget(available: NDArray, cap: NDArray, floor: NDArray) -> int:
    """Largest whole budget that caps and floors allow.

    Args:
        available: (S,) amount of each source in the target's clusters.
        cap: (S,) shares.
        floor: (S,) shares.
    """

    def fits(budget: int) -> bool:
        low, high = _whole_bounds(available, cap, floor, budget)
        return bool(np.all(low <= high)) and low.sum() <= budget <= high.sum()

    low, high = 0, int(available.sum())
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _whole_bounds(
    available: NDArray, cap: NDArray, floor: NDArray, budget: float
) -> tuple[NDArray, NDArray]:
    low = np.ceil(floor * budget - 1e-9).astype(np.int64)
    high = np.minimum(np.floor(cap * budget + 1e-9), available).astype(np.int64)
    return low, high


def select_with_sources(
    problem: SelectionProblem,
    distribution: NDArray,
    lost: float,
    budget: float,
    notices: tuple[Notice, ...],
) -> SelectionResult:
    """Solve the budgeted KL under caps and floors, and round to whole rows.

    Caps and floors are shares of the budget, in its unit. In rows the sources' totals are exact; in
    tokens caps and budget are never exceeded, and are met, like floors, to within one row of a
    source. A cap of 0 excludes the source's rows; target mass on clusters with no other rows is
    lost and reported.

    Args:
        problem: With source_counts, source_names, caps and floors, and source_tokens where the
            budget is in tokens.
        distribution: (K,) from `target_distribution`.
        lost: Share of the target that is lost already.
        budget: Budget in the problem's unit.
        notices: Notices of the steps before.

    Raises:
        BudgetError: Caps and floors do not allow the budget; `largest` is the budget they allow.
        ConfigError: They contradict each other, or the tokens per source are missing.
    """
    cap, floor = source_bounds(problem.source_names, problem.caps, problem.floors)
    counts = np.asarray(problem.source_counts, dtype=np.int64)
    cost = source_cost(problem, counts)
    # Capacity of each source of each cluster in the budget's unit: rows, or tokens.
    amounts = counts if cost is None else np.asarray(problem.source_tokens, dtype=np.int64)
    usable = np.where((cap[None, :] > 0) & (counts > 0), amounts, 0)
    is_used = (distribution > 0) & (usable.sum(axis=1) > 0)
    barred_mass = float(distribution[~is_used].sum())
    if barred_mass > 0:
        notices = (*notices, _barred_notice(barred_mass))
    available = usable[is_used].sum(axis=0).astype(np.float64)
    largest = largest_budget(available, cap, floor)
    if budget > largest:
        raise BudgetError(
            f"The budget is {budget:.0f} {problem.unit}, but caps and floors per source allow "
            f"{largest}: raise a cap, lower a floor, or ask for at most {largest}.",
            largest=float(largest),
        )
    budget = float(math.floor(budget))
    low, high = _whole_bounds(available, cap, floor, budget)
    target_share = distribution[is_used] / distribution[is_used].sum()
    capacity = usable[is_used] / budget
    solution = solve_with_prices(
        target_share, capacity, np.where(cap < 1, high / budget, 1.0), low / budget
    )
    amount = solution.amount * budget
    take = np.zeros_like(counts)
    fractional = np.zeros(counts.shape)
    if cost is None:
        totals = whole_totals(amount.sum(axis=0), low, high, int(budget))
        take[is_used] = whole_rows(target_share, amount, usable[is_used], totals)
        fractional[is_used] = amount
    else:
        take[is_used] = token_rows(
            target_share,
            amount,
            counts[is_used],
            np.where(usable > 0, cost, 0.0)[is_used],
            budget=budget,
            floor=low.astype(np.float64),
            cap=high.astype(np.float64),
        )
        fractional[is_used] = np.divide(
            amount, cost[is_used], out=np.zeros_like(amount), where=cost[is_used] > 0
        )
    target = np.zeros(len(distribution))
    target[is_used] = target_share
    spent = float(take.sum() if cost is None else (take * cost).sum())
    per_row = None if cost is None else mixed_cost(take, cost, counts)
    order, path = smoothed_path(target, take.sum(axis=1), per_row)
    gap = solution.primal - solution.dual
    is_full = np.zeros(len(distribution), dtype=bool)
    is_full[is_used] = amount.sum(axis=1) >= usable[is_used].sum(axis=1) * (1 - 1e-9)
    return SelectionResult(
        objective="budgeted_kl",
        take=take.sum(axis=1),
        fractional=fractional.sum(axis=1),
        order=order,
        divergence_path=path,
        divergence=solution.primal,
        target_mass=target,
        lost_mass=min(1.0, lost + (1.0 - lost) * barred_mass),
        budget=budget,
        unit=problem.unit,
        spent=spent,
        certificate=Certificate(solution.primal, solution.dual, gap),
        binding=_binding(problem, solution.cap_price, solution.floor_price, is_full),
        notices=notices,
        take_by_source=take,
    )


def source_cost(problem: SelectionProblem, counts: NDArray) -> NDArray | None:
    """Mean tokens of a row per cluster and source, or None for a budget in rows.

    Raises:
        ConfigError: The tokens per source are missing.
    """
    if problem.unit == "rows":
        return None
    if problem.source_tokens is None:
        raise ConfigError(
            "Caps and floors under a budget in tokens need source_tokens: the tokens of each "
            "source in each cluster."
        )
    tokens = np.asarray(problem.source_tokens, dtype=np.float64)
    return np.divide(tokens, counts, out=np.zeros_like(tokens), where=counts > 0)


def mixed_cost(take: NDArray, cost: NDArray, counts: NDArray) -> NDArray:
    """Mean tokens of the selected rows of each cluster; of all its rows where none is selected."""
    rows = np.where(take.sum(axis=1, keepdims=True) > 0, take, counts)
    total = np.maximum(rows.sum(axis=1), 1)
    return np.maximum((rows * cost).sum(axis=1) / total, 1e-9)


def _binding(
    problem: SelectionProblem,
    cap_price: NDArray,
    floor_price: NDArray,
    full: NDArray,
) -> tuple[str, ...]:
    words = []
    if full.any():
        words.append(f"capacity: {int(full.sum())} clusters are taken whole")
    for name, cap, floor in zip(problem.source_names, cap_price, floor_price, strict=True):
        if cap > NO_PRICE:
            words.append(f"cap of source {name} ({problem.caps[name]:.1%}), price {cap:.3g}")
        if floor > NO_PRICE:
            words.append(f"floor of source {name} ({problem.floors[name]:.1%}), price {floor:.3g}")
    return tuple(words)


def _barred_notice(barred: float) -> Notice:
    return Notice(
        "sources_barred",
        f"{barred:.1%} of the target's mass lies on clusters whose rows all come from sources "
        f"with a cap of 0.",
        "Raise those caps, or accept that this part of the target is not covered.",
    )
