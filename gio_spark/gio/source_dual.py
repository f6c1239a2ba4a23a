"""Budgeted KL with caps and floors per source: the optimum, by ascent on the sources' prices.

Minimize KL(p || r/B), r_c = sum_s r_cs, over 0 <= r_cs <= N_cs with sum r = B and
L_s <= sum_c r_cs <= U_s. The dual has one price a row (nu) and one more per cap and floor. Which
source of a cluster is used is free where prices tie, so the dual has kinks; a small quadratic
term on r_cs / N_cs smooths them (and splits tied sources evenly). Its weight is lowered in
stages, each solved by projected Newton steps. All in units of the budget: x = r / B.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Factor by which the quadratic term's weight falls per stage, from 1; smaller if a stage fails.
FALL = 8.0
STAGES = 60
NEWTON_STEPS = 30
#: A price below this (and below the remaining distance) that a step would lower counts as 0.
AT_ZERO = 1e-2
HALVINGS = 14
#: Constraint violation that ends a stage, in units of the budget.
SMALL = 1e-11
#: Gap that ends the stages.
ENOUGH = 1e-8


class DualSolution(NamedTuple):
    """Optimum: (K, S) amounts in units of the budget, bounds, and the price per source."""

    amount: NDArray
    primal: float
    dual: float
    price: float
    cap_price: NDArray
    floor_price: NDArray


def solve_with_prices(
    distribution: NDArray, capacity: NDArray, cap: NDArray, floor: NDArray
) -> DualSolution:
    """Solve the budgeted KL under caps and floors per source.

    Args:
        distribution: (K,) p > 0, sum 1.
        capacity: (K, S) capacity over the budget; every cluster has some.
        cap: (S,) largest share of the budget, at most 1 (1: no cap).
        floor: (S,) smallest share (0: no floor). The constraints can be met together.

    Returns:
        Feasible amounts (repaired to rounding) and a lower bound from the unsmoothed dual.
    """
    capped, floored = np.flatnonzero(cap < 1.0), np.flatnonzero(floor > 0.0)
    dual = _Dual(distribution, capacity, cap, floor, capped, floored)
    point = np.concatenate(([1.0], np.zeros(len(capped) + len(floored))))
    entropy = float(np.sum(distribution * np.log(distribution)))
    primal, bound, amount, best_point = np.inf, -np.inf, capacity, point
    history: list[tuple[float, NDArray]] = []
    smoothing, fall = 1.0, FALL
    for _ in range(STAGES):
        tolerance = max(SMALL, 1e-5 * smoothing)
        candidate, converged = _newton(
            dual, _forecast(history, smoothing, point), smoothing, tolerance
        )
        if not converged and history and fall > 1.2:
            # Too far for Newton's method: a smaller fall of the weight.
            fall = float(np.sqrt(fall))
            smoothing = history[-1][0] / fall
            continue
        point = candidate
        history.append((smoothing, point))
        fall = min(FALL, fall * fall) if converged else fall
        repaired = _repair(dual.amounts(dual.prices(point), smoothing)[0], capacity, cap, floor)
        value = entropy - float(np.sum(distribution * np.log(repaired.sum(axis=1))))
        if value < primal:
            primal, amount = value, repaired
        # Any prices give a bound, so also those whose small values, due to smoothing, are set to 0.
        for zeroed_below in (0.0, smoothing, 1e-2, np.inf):
            trial_point = point.copy()
            trial_point[1:][trial_point[1:] <= zeroed_below] = 0.0
            trial_bound = entropy + dual.bound(trial_point)
            if trial_bound > bound:
                bound, best_point = trial_bound, trial_point
        if primal - bound < ENOUGH:
            break
        smoothing /= fall
    point = best_point
    cap_price, floor_price = np.zeros(len(cap)), np.zeros(len(cap))
    cap_price[capped] = point[1 : 1 + len(capped)]
    floor_price[floored] = point[1 + len(capped) :]
    return DualSolution(amount, primal, bound, float(point[0]), cap_price, floor_price)


class _Dual:
    """The dual in z = (price, cap prices, floor prices), smoothed or not."""

    def __init__(
        self,
        distribution: NDArray,
        capacity: NDArray,
        cap: NDArray,
        floor: NDArray,
        capped: NDArray,
        floored: NDArray,
    ) -> None:
        self.distribution, self.capacity = distribution, capacity
        sources = capacity.shape[1]
        self.to_price = np.zeros((sources, 1 + len(capped) + len(floored)))
        self.to_price[:, 0] = 1.0
        self.to_price[capped, 1 + np.arange(len(capped))] = 1.0
        self.to_price[floored, 1 + len(capped) + np.arange(len(floored))] = -1.0
        self.linear = np.concatenate(([1.0], cap[capped], -floor[floored]))

    def prices(self, point: NDArray) -> NDArray:
        return self.to_price @ point

    def amounts(self, price: NDArray, smoothing: float) -> tuple[NDArray, NDArray]:
        """X (K, S) and each cluster's marginal value a = p / sum x.

        x_cs = n_cs clip((a_c - q_s) / eps, 0, 1), and a sum_s x = p. Between the points q_s and
        q_s + eps, the same for all clusters, sum x is linear in a: a quadratic gives a.
        """
        knots = np.unique(np.concatenate((price, price + smoothing)))
        filled = np.clip((knots[None, :] - price[:, None]) / smoothing, 0.0, 1.0)
        total = self.capacity @ filled
        segment = np.sum(knots[None, :] * total < self.distribution[:, None], axis=1) - 1
        segment = np.maximum(segment, 0)
        next_knot = np.minimum(segment + 1, len(knots) - 1)
        row = np.arange(len(self.distribution))
        low, width = knots[segment], knots[next_knot] - knots[segment]
        rise = total[row, next_knot] - total[row, segment]
        slope = np.divide(rise, width, out=np.zeros_like(rise), where=width > 0)
        base = total[row, segment] - slope * low
        root = np.sqrt(base * base + 4.0 * slope * self.distribution)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.where(
                base >= 0, 2.0 * self.distribution / (base + root), (root - base) / (2.0 * slope)
            )
        share = np.clip((value[:, None] - price[None, :]) / smoothing, 0.0, 1.0)
        amount = self.capacity * share
        # A cluster with hardly any mass loses its few digits in a - q: set its sum from p / a.
        total, expected_total = amount.sum(axis=1), self.distribution / value
        inexact = np.flatnonzero(np.abs(total - expected_total) > 1e-9 * expected_total)
        if len(inexact):
            cheapest = np.where(self.capacity[inexact] > 0, price[None, :], np.inf).argmin(axis=1)
            empty = inexact[total[inexact] == 0]
            amount[empty, cheapest[total[inexact] == 0]] = expected_total[empty]
            scaled = inexact[total[inexact] > 0]
            amount[scaled] *= (expected_total[scaled] / total[scaled])[:, None]
            amount[inexact] = np.minimum(amount[inexact], self.capacity[inexact])
        return amount, value

    def smoothed(self, point: NDArray, smoothing: float) -> tuple[float, NDArray, NDArray]:
        """Minus the smoothed dual, its gradient and its Hessian."""
        price = self.prices(point)
        amount, value = self.amounts(price, smoothing)
        total = amount.sum(axis=1)
        ratio = np.divide(amount, self.capacity, out=np.zeros_like(amount), where=self.capacity > 0)
        inner = float(np.sum(amount @ price) - np.sum(self.distribution * np.log(total)))
        inner += 0.5 * smoothing * float(np.sum(amount * ratio))
        gradient = self.linear - self.to_price.T @ amount.sum(axis=0)
        partly_used = np.where((ratio > 0) & (ratio < 1), self.capacity, 0.0)
        damping = partly_used.sum(axis=1) + smoothing * self.distribution / value**2
        curve = np.diag(partly_used.sum(axis=0)) - (partly_used / damping[:, None]).T @ partly_used
        hessian = self.to_price.T @ (curve / smoothing) @ self.to_price
        return float(self.linear @ point) - inner, gradient, hessian

    def bound(self, point: NDArray) -> float:
        """Dual without smoothing: a lower bound on -sum p log(sum_s x) at any point.

        A cluster uses its sources from the cheapest on, up to where p / R meets the price.
        """
        price = self.prices(point)
        order = np.argsort(price, kind="stable")
        price, capacity = price[order], self.capacity[:, order]
        filled = np.cumsum(capacity, axis=1)
        start = filled - capacity
        with np.errstate(divide="ignore"):
            demand = np.where(price > 0, self.distribution[:, None] / price, np.inf)
        amount = np.clip(demand - start, 0.0, capacity)
        total = amount.sum(axis=1)
        inner = float(np.sum(amount @ price) - np.sum(self.distribution * np.log(total)))
        return inner - float(self.linear @ point)


def _forecast(history: list[tuple[float, NDArray]], smoothing: float, point: NDArray) -> NDArray:
    """Forecast of the prices: they change in proportion to the smoothing's weight."""
    if len(history) < 2:
        return point
    (older_smoothing, older_point), (newer_smoothing, newer_point) = history[-2:]
    forecast = newer_point + (smoothing - newer_smoothing) / (newer_smoothing - older_smoothing) * (
        newer_point - older_point
    )
    forecast[1:] = np.maximum(forecast[1:], 0.0)
    return forecast


def _newton(
    dual: _Dual, point: NDArray, smoothing: float, tolerance: float
) -> tuple[NDArray, bool]:
    """Minimize the smoothed function from `point`, with prices of caps and floors not below 0.

    Returns:
        The last point, and whether its gradient is within the tolerance.
    """
    value, gradient, hessian = dual.smoothed(point, smoothing)
    for _ in range(NEWTON_STEPS):
        is_free = np.ones(len(point), dtype=bool)
        projected_point = point - gradient
        projected_point[1:] = np.maximum(projected_point[1:], 0.0)
        zero_margin = min(AT_ZERO, float(np.linalg.norm(projected_point - point)))
        is_free[1:] = (point[1:] > zero_margin) | (gradient[1:] < 0)
        if np.abs(gradient[is_free]).max() < tolerance and not point[~is_free].any():
            return point, True
        block = hessian[np.ix_(is_free, is_free)]
        block = block + np.eye(len(block)) * (1e-12 + 1e-10 * np.trace(block))
        step = np.where(is_free, 0.0, -point)
        step[is_free] = -np.linalg.solve(block, gradient[is_free])
        largest_step = np.abs(step).max()
        if largest_step > 1.0 + np.abs(point).max():  # where the function is flat, steps explode
            step *= (1.0 + np.abs(point).max()) / largest_step
        step_length, improved = 1.0, False
        for _ in range(HALVINGS):
            trial = point + step_length * step
            trial[1:] = np.maximum(trial[1:], 0.0)
            evaluated = dual.smoothed(trial, smoothing)
            if evaluated[0] <= value + 1e-4 * float(gradient @ (trial - point)):
                improved = bool(
                    evaluated[0] < value or np.abs(evaluated[1]).max() < np.abs(gradient).max()
                )
                break
            step_length *= 0.5
        if not improved:
            return point, False
        point, (value, gradient, hessian) = trial, evaluated
    return point, False


def _repair(amount: NDArray, capacity: NDArray, cap: NDArray, floor: NDArray) -> NDArray:
    """Amounts made feasible that are so up to rounding: sources within bounds, sum 1."""
    for _ in range(50):
        by_source = amount.sum(axis=0)
        totals = np.clip(by_source, floor, np.minimum(cap, capacity.sum(axis=0)))
        shortfall = 1.0 - float(totals.sum())
        room = (np.minimum(cap, capacity.sum(axis=0)) if shortfall > 0 else floor) - totals
        if room.sum() != 0:
            totals = totals + room * min(1.0, shortfall / float(room.sum()))
        if np.abs(totals - by_source).max() < 1e-15:
            break
        amount = _to_totals(amount, capacity, totals)
    return amount


def _to_totals(amount: NDArray, capacity: NDArray, totals: NDArray) -> NDArray:
    """Amounts of each source scaled down, or towards its capacity, to reach its total."""
    total, available_total = amount.sum(axis=0), capacity.sum(axis=0)
    lower_factor = np.divide(totals, total, out=np.ones_like(total), where=total > 0)
    room = available_total - total
    raise_factor = np.divide(totals - total, room, out=np.zeros_like(total), where=room > 0)
    lowered = amount * np.minimum(lower_factor, 1.0)
    raised = amount + (capacity - amount) * np.clip(raise_factor, 0.0, 1.0)
    return np.where(totals > total, raised, lowered)
