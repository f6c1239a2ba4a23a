"""Budgeted KL with caps and floors per source: the optimum, by ascent on the sources' prices.

Minimise KL(p || r/B), r_c = sum_s r_cs, over 0 <= r_cs <= N_cs with sum r = B and
L_s <= sum_c r_cs <= U_s. The dual has one price a row (nu) and one more per cap and floor. Which
source of a cluster is used is free where prices tie, so the dual has kinks; a small quadratic
term on r_cs / N_cs smooths them (and splits tied sources evenly). Its weight is lowered in
stages, each solved by projected Newton steps. All in units of the budget: x = r / B.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: The quadratic term's weight falls by this factor a stage, from 1; by less where a stage fails.
FALL = 8.0
STAGES = 60
NEWTON_STEPS = 30
#: A price below this (and below the distance still to go) that is pushed down counts as 0.
AT_ZERO = 1e-2
HALVINGS = 14
#: Constraints met to this, in units of the budget, end a stage.
SMALL = 1e-11
#: A gap this small ends the stages.
ENOUGH = 1e-8


class Priced(NamedTuple):
    """The optimum: (K, S) amounts in units of the budget, bounds, and the price per source."""

    amount: NDArray
    primal: float
    dual: float
    price: float
    cap_price: NDArray
    floor_price: NDArray


def solve_with_prices(law: NDArray, held: NDArray, cap: NDArray, floor: NDArray) -> Priced:
    """Solve the problem above.

    Args:
        law: (K,) p > 0, sum 1.
        held: (K, S) capacity over the budget; every cluster has some.
        cap: (S,) largest share of the budget, at most 1 (1: no cap).
        floor: (S,) smallest share (0: no floor). The constraints can be met together.

    Returns:
        Feasible amounts (repaired to rounding) and a lower bound from the unsmoothed dual.
    """
    capped, floored = np.flatnonzero(cap < 1.0), np.flatnonzero(floor > 0.0)
    dual = _Dual(law, held, cap, floor, capped, floored)
    point = np.concatenate(([1.0], np.zeros(len(capped) + len(floored))))
    entropy = float(np.sum(law * np.log(law)))
    primal, bound, amount, prices = np.inf, -np.inf, held, point
    trail: list[tuple[float, NDArray]] = []
    smoothing, fall = 1.0, FALL
    for _ in range(STAGES):
        tolerance = max(SMALL, 1e-5 * smoothing)
        found, solved = _newton(dual, _forecast(trail, smoothing, point), smoothing, tolerance)
        if not solved and trail and fall > 1.2:
            # Too far for Newton's method: a smaller fall of the weight.
            fall = float(np.sqrt(fall))
            smoothing = trail[-1][0] / fall
            continue
        point = found
        trail.append((smoothing, point))
        fall = min(FALL, fall * fall) if solved else fall
        plan = _repair(dual.amounts(dual.prices(point), smoothing)[0], held, cap, floor)
        value = entropy - float(np.sum(law * np.log(plan.sum(axis=1))))
        if value < primal:
            primal, amount = value, plan
        # Any prices give a bound, so also those with the smoothing's traces wiped off.
        for least in (0.0, smoothing, 1e-2, np.inf):
            tried = point.copy()
            tried[1:][tried[1:] <= least] = 0.0
            lower = entropy + dual.bound(tried)
            if lower > bound:
                bound, prices = lower, tried
        if primal - bound < ENOUGH:
            break
        smoothing /= fall
    point = prices
    cap_price, floor_price = np.zeros(len(cap)), np.zeros(len(cap))
    cap_price[capped] = point[1 : 1 + len(capped)]
    floor_price[floored] = point[1 + len(capped) :]
    return Priced(amount, primal, bound, float(point[0]), cap_price, floor_price)


class _Dual:
    """The dual in z = (price, cap prices, floor prices), smoothed or not."""

    def __init__(
        self,
        law: NDArray,
        held: NDArray,
        cap: NDArray,
        floor: NDArray,
        capped: NDArray,
        floored: NDArray,
    ) -> None:
        self.law, self.held = law, held
        sources = held.shape[1]
        self.to_price = np.zeros((sources, 1 + len(capped) + len(floored)))
        self.to_price[:, 0] = 1.0
        self.to_price[capped, 1 + np.arange(len(capped))] = 1.0
        self.to_price[floored, 1 + len(capped) + np.arange(len(floored))] = -1.0
        self.linear = np.concatenate(([1.0], cap[capped], -floor[floored]))

    def prices(self, point: NDArray) -> NDArray:
        return self.to_price @ point

    def amounts(self, price: NDArray, smoothing: float) -> tuple[NDArray, NDArray]:
        """Return x (K, S) and each cluster's marginal value a = p / sum x.

        x_cs = n_cs clip((a_c - q_s) / eps, 0, 1), and a sum_s x = p. Between the points q_s and
        q_s + eps, the same for all clusters, sum x is linear in a: a quadratic gives a.
        """
        knots = np.unique(np.concatenate((price, price + smoothing)))
        filled = np.clip((knots[None, :] - price[:, None]) / smoothing, 0.0, 1.0)
        total = self.held @ filled
        segment = np.sum(knots[None, :] * total < self.law[:, None], axis=1) - 1
        segment = np.maximum(segment, 0)
        after = np.minimum(segment + 1, len(knots) - 1)
        row = np.arange(len(self.law))
        low, width = knots[segment], knots[after] - knots[segment]
        rise = total[row, after] - total[row, segment]
        slope = np.divide(rise, width, out=np.zeros_like(rise), where=width > 0)
        base = total[row, segment] - slope * low
        root = np.sqrt(base * base + 4.0 * slope * self.law)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.where(
                base >= 0, 2.0 * self.law / (base + root), (root - base) / (2.0 * slope)
            )
        share = np.clip((value[:, None] - price[None, :]) / smoothing, 0.0, 1.0)
        amount = self.held * share
        # A cluster with next to no mass loses its few digits in a - q: set its sum from p / a.
        total, right = amount.sum(axis=1), self.law / value
        off = np.flatnonzero(np.abs(total - right) > 1e-9 * right)
        if len(off):
            cheapest = np.where(self.held[off] > 0, price[None, :], np.inf).argmin(axis=1)
            empty = off[total[off] == 0]
            amount[empty, cheapest[total[off] == 0]] = right[empty]
            scaled = off[total[off] > 0]
            amount[scaled] *= (right[scaled] / total[scaled])[:, None]
            amount[off] = np.minimum(amount[off], self.held[off])
        return amount, value

    def smoothed(self, point: NDArray, smoothing: float) -> tuple[float, NDArray, NDArray]:
        """Return minus the smoothed dual, its gradient and its Hessian."""
        price = self.prices(point)
        amount, value = self.amounts(price, smoothing)
        total = amount.sum(axis=1)
        ratio = np.divide(amount, self.held, out=np.zeros_like(amount), where=self.held > 0)
        inner = float(np.sum(amount @ price) - np.sum(self.law * np.log(total)))
        inner += 0.5 * smoothing * float(np.sum(amount * ratio))
        gradient = self.linear - self.to_price.T @ amount.sum(axis=0)
        moving = np.where((ratio > 0) & (ratio < 1), self.held, 0.0)
        damp = moving.sum(axis=1) + smoothing * self.law / value**2
        curve = np.diag(moving.sum(axis=0)) - (moving / damp[:, None]).T @ moving
        hessian = self.to_price.T @ (curve / smoothing) @ self.to_price
        return float(self.linear @ point) - inner, gradient, hessian

    def bound(self, point: NDArray) -> float:
        """Return the dual without smoothing: a lower bound on -sum p log(sum_s x) at any point.

        A cluster uses its sources from the cheapest on, up to where p / R meets the price.
        """
        price = self.prices(point)
        order = np.argsort(price, kind="stable")
        price, held = price[order], self.held[:, order]
        filled = np.cumsum(held, axis=1)
        start = filled - held
        with np.errstate(divide="ignore"):
            wanted = np.where(price > 0, self.law[:, None] / price, np.inf)
        amount = np.clip(wanted - start, 0.0, held)
        total = amount.sum(axis=1)
        inner = float(np.sum(amount @ price) - np.sum(self.law * np.log(total)))
        return inner - float(self.linear @ point)


def _forecast(trail: list[tuple[float, NDArray]], smoothing: float, point: NDArray) -> NDArray:
    """Return where the prices will be: they move in proportion to the smoothing's weight."""
    if len(trail) < 2:
        return point
    (older, before), (newer, last) = trail[-2:]
    ahead = last + (smoothing - newer) / (newer - older) * (last - before)
    ahead[1:] = np.maximum(ahead[1:], 0.0)
    return ahead


def _newton(
    dual: _Dual, point: NDArray, smoothing: float, tolerance: float
) -> tuple[NDArray, bool]:
    """Lower the smoothed function from `point`, prices of caps and floors kept at 0 or above.

    Returns the point reached, and whether its gradient is within the tolerance.
    """
    value, gradient, hessian = dual.smoothed(point, smoothing)
    for _ in range(NEWTON_STEPS):
        free = np.ones(len(point), dtype=bool)
        left = point - gradient
        left[1:] = np.maximum(left[1:], 0.0)
        near = min(AT_ZERO, float(np.linalg.norm(left - point)))
        free[1:] = (point[1:] > near) | (gradient[1:] < 0)
        if np.abs(gradient[free]).max() < tolerance and not point[~free].any():
            return point, True
        block = hessian[np.ix_(free, free)]
        block = block + np.eye(len(block)) * (1e-12 + 1e-10 * np.trace(block))
        step = np.where(free, 0.0, -point)
        step[free] = -np.linalg.solve(block, gradient[free])
        longest = np.abs(step).max()
        if longest > 1.0 + np.abs(point).max():  # where the function is flat, steps explode
            step *= (1.0 + np.abs(point).max()) / longest
        length, moved = 1.0, False
        for _ in range(HALVINGS):
            trial = point + length * step
            trial[1:] = np.maximum(trial[1:], 0.0)
            found = dual.smoothed(trial, smoothing)
            if found[0] <= value + 1e-4 * float(gradient @ (trial - point)):
                moved = bool(found[0] < value or np.abs(found[1]).max() < np.abs(gradient).max())
                break
            length *= 0.5
        if not moved:
            return point, False
        point, (value, gradient, hessian) = trial, found
    return point, False


def _repair(amount: NDArray, held: NDArray, cap: NDArray, floor: NDArray) -> NDArray:
    """Make amounts feasible that are so up to rounding: sources to their bounds, sum to 1."""
    for _ in range(50):
        by_source = amount.sum(axis=0)
        wanted = np.clip(by_source, floor, np.minimum(cap, held.sum(axis=0)))
        short = 1.0 - float(wanted.sum())
        room = (np.minimum(cap, held.sum(axis=0)) if short > 0 else floor) - wanted
        if room.sum() != 0:
            wanted = wanted + room * min(1.0, short / float(room.sum()))
        if np.abs(wanted - by_source).max() < 1e-15:
            break
        amount = _to_totals(amount, held, wanted)
    return amount


def _to_totals(amount: NDArray, held: NDArray, wanted: NDArray) -> NDArray:
    """Scale each source's amounts down, or towards what is held, to reach its total."""
    total, full = amount.sum(axis=0), held.sum(axis=0)
    down = np.divide(wanted, total, out=np.ones_like(total), where=total > 0)
    room = full - total
    up = np.divide(wanted - total, room, out=np.zeros_like(total), where=room > 0)
    lowered = amount * np.minimum(down, 1.0)
    raised = amount + (held - amount) * np.clip(up, 0.0, 1.0)
    return np.where(wanted > total, raised, lowered)
