"""The published GIO algorithm, step by step, with its gradient in closed form.

Source: Everaert and Potts, arXiv 2306.11670, and the options of their package grad-info-opt.
Each pick descends from a start point v on the divergence of W + {v}, and takes the candidate
nearest to where v ends. The gradient in v needs the target alone: a step costs O(n d).
`exact_path` finds the optimum of the same objective at once; this is for comparison with
published results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gio_spark.errors import InputError
from gio_spark.gio.distances import blocks, squared_distances, squared_norms
from gio_spark.gio.exact import (
    EPS,
    SQUARED_RANGE,
    published_divergence_curve,
    target_log_distance,
)
from gio_spark.gio.published_options import Draws, PublishedOptions, SeededDraws
from gio_spark.process import one_blas_thread


class PublishedPath(NamedTuple):
    """Picks in order, and the divergence after each."""

    order: NDArray
    divergence: NDArray


@dataclass(frozen=True, eq=False)
class PublishedRun:
    """A run with what is needed to understand it.

    Attributes:
        order: picks kept, in order. After a reset a candidate may appear again.
        divergence: divergence after each pick kept.
        margins: relative gap of each pick's distance to the runner-up's; near 0 is a near-tie.
        start_divergence: divergence of the initial data.
        stop: what ended the run: a stop criterion, "max_iter", "pool" or "until".
        resets: how often the pool was refilled.
        scale_factor: the gradient's scale.
    """

    order: NDArray
    divergence: NDArray
    margins: NDArray
    start_divergence: float
    stop: str
    resets: int
    scale_factor: float


def published_gio(
    target: ArrayLike,
    pool: ArrayLike,
    *,
    D: ArrayLike | None = None,
    seed: int = 0,
    **options: Any,
) -> PublishedPath:
    """Run the published algorithm and return its picks.

    Args:
        target: (n, d) rows X.
        pool: (m, d) candidates G.
        D: (m0, d) data already held; None draws a start (`random_init_pct`, or uniform points).
        seed: seed of all draws; gives the draws that the original makes after
            random.seed(seed) and numpy.random.seed(seed).
        options: fields of `PublishedOptions`, by their published names.

    Returns:
        order: indices into `pool`; divergence: after each pick.

    Raises:
        InputError: shapes that do not fit.
        ConfigError: an unknown option, or one out of range.
    """
    run = published_run(target, pool, PublishedOptions.of(**options), D=D, seed=seed)
    return PublishedPath(run.order, run.divergence)


def published_run(
    target: ArrayLike,
    pool: ArrayLike,
    options: PublishedOptions,
    *,
    D: ArrayLike | None = None,
    seed: int = 0,
    draws: Draws | None = None,
    until: Callable[[int], bool] | None = None,
) -> PublishedRun:
    """Run the published algorithm and return all that is known of the run.

    Args:
        target: (n, d) rows X.
        pool: (m, d) candidates G.
        options: the published options.
        D: (m0, d) data already held.
        seed: seed of the draws.
        draws: another source of draws.
        until: called with each pick kept; True ends the run.
    """
    x = np.atleast_2d(np.asarray(target, dtype=np.float64))
    g = np.atleast_2d(np.asarray(pool, dtype=np.float64))
    if x.shape[1] != g.shape[1]:
        raise InputError(f"The target has dimension {x.shape[1]} and the pool {g.shape[1]}.")
    source = draws if draws is not None else SeededDraws(seed)
    w = _initial(x, g, D, options, source)
    state = _State(x, g, w, options)
    # A step is two products of a small matrix with a vector: threads wait longer for one another
    # than they work (0.3 ms on one thread, 5 to 20 ms on two of a busy machine).
    with one_blas_thread():
        return _run(state, options, source, until)


def _initial(
    x: NDArray, g: NDArray, held: ArrayLike | None, options: PublishedOptions, draws: Draws
) -> NDArray:
    if held is not None:
        w = np.atleast_2d(np.asarray(held, dtype=np.float64))
    elif options.random_init_pct:
        w = g[draws.share(len(g), int(options.random_init_pct * len(g)))]
    else:
        shape = (options.uniform_start_size, x.shape[1])
        w = draws.uniform(options.uniform_low, options.uniform_high, shape)
        if options.normalize:
            length = np.linalg.norm(w, axis=1, keepdims=True)
            w = w / np.where(length > 0, length, 1.0)
    least = 2 if options.discard_nearest_for_xy else 1
    if len(w) < least or w.shape[1] != x.shape[1]:
        raise InputError(
            f"The initial data have shape {w.shape}; at least {least} rows of dimension "
            f"{x.shape[1]} are needed. Raise random_init_pct or give D."
        )
    return w


class _State:
    """Target, pool and selection in coordinates centred on the target's mean."""

    def __init__(self, x: NDArray, g: NDArray, w: NDArray, options: PublishedOptions) -> None:
        self.origin = x.mean(axis=0)
        self.x = np.ascontiguousarray(x - self.origin)
        self.g = np.ascontiguousarray(g - self.origin)
        self.x_norms, self.g_norms = squared_norms(self.x), squared_norms(self.g)
        self.free = np.ones(len(g), dtype=bool)
        self.discard = options.discard_nearest_for_xy
        self.k = options.k
        self.rho = target_log_distance(x, options.k)
        self.held = len(w)
        self.log_sum = 0.0
        self.nearest = np.full(len(x), np.inf)
        centred = w - self.origin
        for block in blocks(len(w), len(x), 8):
            squared = squared_distances(centred[block], self.x, right_norms=self.x_norms)
            np.clip(squared, *SQUARED_RANGE, out=squared)
            self.log_sum += float(np.log(np.sqrt(squared) + EPS).sum())
            np.minimum(self.nearest, squared.min(axis=0), out=self.nearest)

    def to_target(self, point: NDArray) -> NDArray:
        """Return the clipped squared distances of one point to the target rows."""
        squared = self.x @ point
        squared *= -2.0
        squared += self.x_norms
        squared += point @ point
        return np.clip(squared, *SQUARED_RANGE, out=squared)

    def divergence(self, log_sum: float, nearest: NDArray, held: int) -> float:
        pairs = held
        if self.discard:
            log_sum = log_sum - float(np.log(np.sqrt(nearest) + EPS).sum())
            pairs -= 1
        n, d = self.x.shape
        mean = np.array([log_sum / (n * pairs)])
        return float(published_divergence_curve(mean, np.array([held]), self.rho, n, d, self.k)[0])

    def gradient(self, v: NDArray) -> NDArray:
        """Return the gradient of the divergence of W + {v} in v.

        d / (n c) sum_i (v - x_i) / (r_i (r_i + eps)), c = m + 1 columns. With discard, rows
        whose nearest is v drop out, and c = m. Distances at the clip have no gradient.
        """
        squared = self.to_target(v)
        root = np.sqrt(squared)
        weight = 1.0 / (squared + EPS * root)
        weight[(squared <= SQUARED_RANGE[0]) | (squared >= SQUARED_RANGE[1])] = 0.0
        columns = self.held + 1
        if self.discard:
            weight[squared < self.nearest] = 0.0
            columns -= 1
        n, d = self.x.shape
        return (d / (n * columns)) * (weight.sum() * v - weight @ self.x)

    def nearest_free(self, v: NDArray) -> tuple[int, float]:
        """Return the free candidate nearest to v (ties: lowest index) and its margin."""
        rough = self.g_norms - 2.0 * (self.g @ v)
        rough[~self.free] = np.inf
        count = min(8, int(self.free.sum()))
        near = np.argpartition(rough, count - 1)[:count] if count < len(rough) else np.arange(count)
        near = np.sort(near)
        gap = np.linalg.norm(self.g[near] - v, axis=1)
        best = int(np.argmin(gap))
        others = np.delete(gap, best)
        runner_up = float(others.min()) if len(others) else np.inf
        return int(near[best]), (runner_up - gap[best]) / max(float(gap[best]), 1e-300)


def _descend(state: _State, v: NDArray, steps: int, rate: float) -> NDArray:
    for _ in range(steps):
        v = v - rate * state.gradient(v)
    return v


def _run(
    state: _State,
    options: PublishedOptions,
    draws: Draws,
    until: Callable[[int], bool] | None,
) -> PublishedRun:
    middle = np.zeros(state.x.shape[1])

    def start(previous: NDArray) -> NDArray:
        if options.v_init == "jump":
            return state.x[draws.index(len(state.x))]
        return middle if options.v_init == "mean" else previous

    v = start(middle)
    scale = options.scale_factor
    if isinstance(scale, str):
        steepness = float(np.linalg.norm(state.gradient(v)))
        length = float(np.linalg.norm(v + state.origin))
        scale = length / steepness if steepness > 0 else 0.0
    before = first = state.divergence(state.log_sum, state.nearest, state.held)
    order: list[int] = []
    path: list[float] = []
    margins: list[float] = []
    position, resets, rises, fresh = 0, 0, 0, True
    limit = max(1, int(options.max_data_size * len(state.g)))
    stop = ""
    while not stop:
        if len(order) >= options.max_iter:
            stop = "max_iter"
            break
        if not state.free.any():
            stop = "pool"
            break
        long = position == 0 or fresh or draws.restart() < options.random_restart_prob
        steps = options.grad_desc_iter * (3 if long else 1)
        v = _descend(state, v, steps, options.lr * scale)
        pick, margin = state.nearest_free(v)
        state.free[pick] = False
        squared = state.to_target(state.g[pick])
        log_sum = state.log_sum + float(np.log(np.sqrt(squared) + EPS).sum())
        nearest = np.minimum(state.nearest, squared)
        now = state.divergence(log_sum, nearest, state.held + 1)
        v = start(v)
        rises = rises + 1 if now > before else 0
        if options.rejects(before, now, rises):
            if not (options.resets_allowed and resets < options.max_resets):
                stop = options.stop_criterion
                break
            resets += 1
            state.free[:] = True
            position, fresh, rises = position - 1, True, 0
            v = middle if options.v_init == "prev_opt" else v
            continue
        state.log_sum, state.nearest, state.held = log_sum, nearest, state.held + 1
        order.append(pick)
        path.append(now)
        margins.append(margin)
        before, fresh, position = now, False, position + 1
        if options.stop_criterion == "min_kl" and now < options.min_kl:
            stop = "min_kl"
        elif options.stop_criterion == "data_size" and len(order) >= limit:
            stop = "data_size"
        elif until is not None and until(pick):
            stop = "until"
    return PublishedRun(
        np.array(order, dtype=np.int64),
        np.array(path),
        np.array(margins),
        first,
        stop,
        resets,
        float(scale),
    )
