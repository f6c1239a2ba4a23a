"""The objective "budgeted_kl" under caps and floors per source."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gio_spark.errors import BudgetError, ConfigError
from gio_spark.gio.paths import smoothed_path
from gio_spark.gio.problem import Certificate, Notice, SelectionProblem, SelectionResult
from gio_spark.gio.source_prices import solve_with_prices
from gio_spark.gio.source_rounding import whole_rows, whole_totals

#: A price below this (the price of a row is about 1) does not count as binding.
NO_PRICE = 1e-6


def source_bounds(problem: SelectionProblem) -> tuple[NDArray, NDArray]:
    """Return caps and floors as shares per source, 1 and 0 where none is set.

    Raises:
        ConfigError: they contradict each other.
    """
    names = problem.source_names
    cap = np.array([float(problem.caps.get(name, 1.0)) for name in names])
    floor = np.array([float(problem.floors.get(name, 0.0)) for name in names])
    for name, high, low in zip(names, cap, floor, strict=True):
        if low > high:
            raise ConfigError(f"Source {name!r} has a floor of {low} above its cap of {high}.")
    if floor.sum() > 1.0 + 1e-12:
        raise ConfigError(f"The floors add up to {floor.sum():.3f}; they may reach 1 at most.")
    if cap.sum() < 1.0 - 1e-12:
        raise ConfigError(f"The caps add up to {cap.sum():.3f}, so no budget can be filled.")
    return cap, floor


def largest_budget(held: NDArray, cap: NDArray, floor: NDArray) -> int:
    """Return the largest whole budget that caps and floors allow.

    Args:
        held: (S,) what the target's clusters hold of each source.
        cap: (S,) shares.
        floor: (S,) shares.
    """

    def fits(budget: int) -> bool:
        low, high = _whole_bounds(held, cap, floor, budget)
        return bool(np.all(low <= high)) and low.sum() <= budget <= high.sum()

    low, high = 0, int(held.sum())
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _whole_bounds(
    held: NDArray, cap: NDArray, floor: NDArray, budget: float
) -> tuple[NDArray, NDArray]:
    low = np.ceil(floor * budget - 1e-9).astype(np.int64)
    high = np.minimum(np.floor(cap * budget + 1e-9), held).astype(np.int64)
    return low, high


def select_with_sources(
    problem: SelectionProblem,
    law: NDArray,
    lost: float,
    budget: float,
    notices: tuple[Notice, ...],
) -> SelectionResult:
    """Solve the budgeted KL under caps and floors, and round with totals kept exactly.

    A cap of 0 takes the source's rows away; target mass that only they could serve is lost and
    reported.

    Args:
        problem: with source_counts, source_names, caps and floors; budget in rows.
        law: (K,) from `target_law`.
        lost: share of the target that is lost already.
        budget: in rows.
        notices: what is to be said anyway.

    Raises:
        BudgetError: caps and floors do not allow the budget; `largest` is what they allow.
        ConfigError: they contradict each other, or the budget is in tokens.
    """
    if problem.unit != "rows":
        raise ConfigError("Caps and floors per source need a budget in rows.")
    cap, floor = source_bounds(problem)
    counts = np.asarray(problem.source_counts, dtype=np.int64)
    usable = np.where(cap[None, :] > 0, counts, 0)
    used = (law > 0) & (usable.sum(axis=1) > 0)
    barred = float(law[~used].sum())
    if barred > 0:
        notices = (*notices, _barred_notice(barred))
    held = usable[used].sum(axis=0).astype(np.float64)
    largest = largest_budget(held, cap, floor)
    if budget > largest:
        raise BudgetError(
            f"The budget is {budget:.0f} rows, but caps and floors per source allow "
            f"{largest}: raise a cap, lower a floor, or ask for at most {largest}.",
            largest=float(largest),
        )
    budget = float(math.floor(budget))
    low, high = _whole_bounds(held, cap, floor, budget)
    share = law[used] / law[used].sum()
    room = usable[used] / budget
    priced = solve_with_prices(share, room, np.where(cap < 1, high / budget, 1.0), low / budget)
    amount = priced.amount * budget
    totals = whole_totals(amount.sum(axis=0), low, high, int(budget))
    take = np.zeros_like(counts)
    take[used] = whole_rows(share, amount, usable[used], totals)
    fractional = np.zeros(len(law))
    fractional[used] = amount.sum(axis=1)
    target = np.zeros(len(law))
    target[used] = share
    order, path = smoothed_path(target, take.sum(axis=1))
    gap = priced.primal - priced.dual
    return SelectionResult(
        objective="budgeted_kl",
        take=take.sum(axis=1),
        fractional=fractional,
        order=order,
        divergence_path=path,
        divergence=priced.primal,
        target_mass=target,
        lost_mass=min(1.0, lost + (1.0 - lost) * barred),
        budget=budget,
        unit="rows",
        spent=float(take.sum()),
        certificate=Certificate(priced.primal, priced.dual, gap),
        binding=_binding(problem, priced.cap_price, priced.floor_price, fractional, usable),
        notices=notices,
        take_by_source=take,
    )


def _binding(
    problem: SelectionProblem,
    cap_price: NDArray,
    floor_price: NDArray,
    fractional: NDArray,
    usable: NDArray,
) -> tuple[str, ...]:
    words = []
    full = (fractional > 0) & (fractional >= usable.sum(axis=1) * (1 - 1e-9))
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
