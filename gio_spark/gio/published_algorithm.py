"""The published GIO algorithm, step by step, with its gradient in closed form.

Source: Everaert and Potts, arXiv 2306.11670, and the options of their package grad-info-opt.
Each pick is a gradient descent from a start point v on the divergence of W + {v}, followed by the
candidate nearest to the last v. The gradient in v needs the target alone: a step costs O(n d).
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
from gio_spark.gio.published_exact import (
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
    """Picks of a run, with its divergences, margins, stop criterion and resets.

    Attributes:
        order: Accepted picks, in order. After a reset a candidate may appear again.
        divergence: Divergence after each accepted pick, in nats.
        margins: Relative gap of each pick's distance to the runner-up's; near 0 is a near-tie.
        start_divergence: Divergence of the initial data.
        stop: Reason for the end: a stop criterion, "max_iter", "pool" or "until".
        resets: How often the pool was refilled.
        scale_factor: Scale of the gradient.
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
    """Picks of the published algorithm.

    Source: Everaert and Potts, arXiv 2306.11670.

    Args:
        target: (n, d) rows X.
        pool: (m, d) candidates G.
        D: (m0, d) initial data; None draws a start (`random_init_pct`, or uniform points).
        seed: Seed of all draws; the draws are those that the original makes after
            random.seed(seed) and numpy.random.seed(seed).
        options: Fields of `PublishedOptions`, by their published names.

    Returns:
        order: indices into `pool`; divergence: after each pick, in nats.

    Raises:
        InputError: Shapes do not match.
        ConfigError: An option is unknown or out of range.

    Example:
        >>> import numpy as np
        >>> target = np.random.default_rng(0).standard_normal((20, 2))
        >>> picks = published_gio(target, [[9.0, 9.0], [0.1, 0.0]], max_iter=1, k=3)
        >>> picks.order
        array([1])
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
    """Picks of the published algorithm, with margins, resets and the reason for the end.

    Args:
        target: (n, d) rows X.
        pool: (m, d) candidates G.
        options: The published options.
        D: (m0, d) initial data.
        seed: Seed of the draws.
        draws: Another source of draws.
        until: Called with each accepted pick; True ends the run.

    Raises:
        InputError: Shapes do not match, or the initial data have too few rows.
    """
    x = np.atleast_2d(np.asarray(target, dtype=np.float64))
    g = np.atleast_2d(np.asarray(pool, dtype=np.float64))
    if x.shape[1] != g.shape[1]:
        raise InputError(f"The target has dimension {x.shape[1]} and the pool {g.shape[1]}.")
    source = draws if draws is not None else SeededDraws(seed)
    w = _initial(x, g, D, options, source)
    state = _State(x, g, w, options)
    # A step is two products of a small matrix with a vector, which two threads only slow down
    # (0.3 ms on one thread, 5 to 20 ms on two of a busy machine).
    with one_blas_thread():
        return _run(state, options, source, until)


def _initial(
    x: NDArray, g: NDArray, initial: ArrayLike | None, options: PublishedOptions, draws: Draws
) -> NDArray:
    if initial is not None:
        selection = np.atleast_2d(np.asarray(initial, dtype=np.float64))
    elif options.random_init_pct:
        selection = g[draws.share(len(g), int(options.random_init_pct * len(g)))]
    else:
        shape = (options.uniform_start_size, x.shape[1])
        selection = draws.uniform(options.uniform_low, options.uniform_high, shape)
        if options.normalize:
            length = np.linalg.norm(selection, axis=1, keepdims=True)
            selection = selection / np.where(length > 0, length, 1.0)
    least = 2 if options.discard_nearest_for_xy else 1
    if len(selection) < least or selection.shape[1] != x.shape[1]:
        raise InputError(
            f"The initial data have shape {selection.shape}; at least {least} rows of dimension "
            f"{x.shape[1]} are needed. Raise random_init_pct or give D."
        )
    return selection


class _State:
    """Target, pool and selection in coordinates centered on the target's mean."""

    def __init__(self, x: NDArray, g: NDArray, w: NDArray, options: PublishedOptions) -> None:
        self.origin = x.mean(axis=0)
        self.x = np.ascontiguousarray(x - self.origin)
        self.g = np.ascontiguousarray(g - self.origin)
        self.x_norms, self.g_norms = squared_norms(self.x), squared_norms(self.g)
        self.free = np.ones(len(g), dtype=bool)
        self.discard = options.discard_nearest_for_xy
        self.k = options.k
        self.rho = target_log_distance(x, options.k)
        self.count = len(w)
        self.log_sum = 0.0
        self.nearest = np.full(len(x), np.inf)
        centered = w - self.origin
        for block in blocks(len(w), len(x), 8):
            squared = squared_distances(centered[block], self.x, right_norms=self.x_norms)
            np.clip(squared, *SQUARED_RANGE, out=squared)
            self.log_sum += float(np.log(np.sqrt(squared) + EPS).sum())
            np.minimum(self.nearest, squared.min(axis=0), out=self.nearest)

    def to_target(self, point: NDArray) -> NDArray:
        """Clipped squared distances of one point to the target rows."""
        squared = self.x @ point
        squared *= -2.0
        squared += self.x_norms
        squared += point @ point
        return np.clip(squared, *SQUARED_RANGE, out=squared)

    def divergence(self, log_sum: float, nearest: NDArray, count: int) -> float:
        pairs = count
        if self.discard:
            log_sum = log_sum - float(np.log(np.sqrt(nearest) + EPS).sum())
            pairs -= 1
        n, d = self.x.shape
        mean = np.array([log_sum / (n * pairs)])
        return float(published_divergence_curve(mean, np.array([count]), self.rho, n, d, self.k)[0])

    def gradient(self, v: NDArray) -> NDArray:
        """Gradient of the divergence of W + {v} in v.

        d / (n c) sum_i (v - x_i) / (r_i (r_i + eps)), c = m + 1 columns. With discard, rows
        whose nearest is v drop out, and c = m. Distances at the clip have no gradient.
        """
        squared = self.to_target(v)
        root = np.sqrt(squared)
        weight = 1.0 / (squared + EPS * root)
        weight[(squared <= SQUARED_RANGE[0]) | (squared >= SQUARED_RANGE[1])] = 0.0
        columns = self.count + 1
        if self.discard:
            weight[squared < self.nearest] = 0.0
            columns -= 1
        n, d = self.x.shape
        return (d / (n * columns)) * (weight.sum() * v - weight @ self.x)

    def nearest_free(self, v: NDArray) -> tuple[int, float]:
        """Free candidate nearest to v (ties: lowest index) and its margin."""
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
    previous = start_divergence = state.divergence(state.log_sum, state.nearest, state.count)
    order: list[int] = []
    path: list[float] = []
    margins: list[float] = []
    position, resets, rises, is_fresh = 0, 0, 0, True
    limit = max(1, int(options.max_data_size * len(state.g)))
    stop = ""
    while not stop:
        if len(order) >= options.max_iter:
            stop = "max_iter"
            break
        if not state.free.any():
            stop = "pool"
            break
        is_long = position == 0 or is_fresh or draws.restart() < options.random_restart_prob
        steps = options.grad_desc_iter * (3 if is_long else 1)
        v = _descend(state, v, steps, options.lr * scale)
        pick, margin = state.nearest_free(v)
        state.free[pick] = False
        squared = state.to_target(state.g[pick])
        log_sum = state.log_sum + float(np.log(np.sqrt(squared) + EPS).sum())
        nearest = np.minimum(state.nearest, squared)
        divergence = state.divergence(log_sum, nearest, state.count + 1)
        v = start(v)
        rises = rises + 1 if divergence > previous else 0
        if options.rejects(previous, divergence, rises):
            if not (options.resets_allowed and resets < options.max_resets):
                stop = options.stop_criterion
                break
            resets += 1
            state.free[:] = True
            position, is_fresh, rises = position - 1, True, 0
            v = middle if options.v_init == "prev_opt" else v
            continue
        state.log_sum, state.nearest, state.count = log_sum, nearest, state.count + 1
        order.append(pick)
        path.append(divergence)
        margins.append(margin)
        previous, is_fresh, position = divergence, False, position + 1
        if options.stop_criterion == "min_kl" and divergence < options.min_kl:
            stop = "min_kl"
        elif options.stop_criterion == "data_size" and len(order) >= limit:
            stop = "data_size"
        elif until is not None and until(pick):
            stop = "until"
    return PublishedRun(
        np.array(order, dtype=np.int64),
        np.array(path),
        np.array(margins),
        start_divergence,
        stop,
        resets,
        float(scale),
    )
