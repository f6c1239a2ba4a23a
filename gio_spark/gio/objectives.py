"""The objectives on points, under their registered names."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from gio_spark.errors import ConfigError
from gio_spark.gio.exact import exact_path
from gio_spark.gio.greedy import knn_greedy
from gio_spark.gio.greedy_energy import energy_greedy
from gio_spark.gio.problem import SelectionProblem, SelectionResult, register
from gio_spark.gio.published import published_run
from gio_spark.gio.published_options import PublishedOptions
from gio_spark.gio.ranking import from_order, needs_points, refused, usable_clusters


def option_keys(problem: SelectionProblem, name: str, known: tuple[str, ...]) -> None:
    """Refuse options that the objective does not know.

    Raises:
        ConfigError: an option is unknown; the known ones are listed.
    """
    shared = ("kappa", "heldout_budget")
    for key in problem.options:
        if key not in known and key not in shared:
            raise ConfigError(
                f"The objective {name!r} has no option {key!r}. Known: {', '.join(known)}."
            )


@register("published_exact")
def select_published_exact(problem: SelectionProblem) -> SelectionResult:
    """Solve the published objective exactly: clusters by score, whole, until the budget is met.

    Options: `k` (5), the neighbour used inside the target; `stop` ("budget" or "increase", the
    published criterion: stop before the divergence rises).
    """
    name = "published_exact"
    option_keys(problem, name, ("k", "stop"))
    empty = refused(name, problem)
    if empty is not None:
        return empty
    target = needs_points(name, problem)
    clusters = usable_clusters(problem)
    k = min(int(problem.options.get("k", 5)), len(target) - 1)
    path = exact_path(target, problem.pool_centroids[clusters], k, weights=problem.target_weights)
    stop = problem.options.get("stop", "budget")
    if stop not in ("budget", "increase"):
        raise ConfigError(f"stop is {stop!r}; use 'budget' or 'increase'.")
    length = len(path.order)
    if stop == "increase":
        rises = np.flatnonzero(np.diff(path.divergence) > 0)
        length = int(rises[0]) + 1 if len(rises) else length
    order = clusters[path.order[:length]]
    return from_order(name, problem, order, path.divergence[:length], stopped=stop == "increase")


@register("published")
def select_published(problem: SelectionProblem) -> SelectionResult:
    """Run the published algorithm on the centroids; clusters whole until the budget is met.

    Options: those of `PublishedOptions` by their published names, and `D`. Without a
    `stop_criterion` it picks until the budget is met; with one it may stop before. A cluster
    picked again after a reset counts once.
    """
    name = "published"
    known = ("D", *(field.name for field in fields(PublishedOptions)))
    option_keys(problem, name, known)
    empty = refused(name, problem)
    if empty is not None:
        return empty
    target = needs_points(name, problem)
    clusters = usable_clusters(problem)
    passed = {key: problem.options[key] for key in problem.options if key in known[1:]}
    stopped = "stop_criterion" in passed
    if not stopped:
        passed |= {"stop_criterion": "min_kl", "min_kl": -np.inf}
    passed.setdefault("max_iter", len(clusters))
    passed["k"] = min(int(passed.get("k", 5)), len(target) - 1)
    left = problem.resolved_budget()
    held = problem.capacity[clusters]
    seen: set[int] = set()

    def met(pick: int) -> bool:
        nonlocal left
        left -= 0.0 if pick in seen else float(held[pick])
        seen.add(pick)
        return left <= 0

    run = published_run(
        target,
        problem.pool_centroids[clusters],
        PublishedOptions.of(**passed),
        D=problem.options.get("D"),
        seed=problem.seed,
        until=met,
    )
    _, first = np.unique(run.order, return_index=True)
    first.sort()
    order = clusters[run.order[first]]
    return from_order(name, problem, order, run.divergence[first], stopped=stopped)


@register("knn_kl")
def select_knn_kl(problem: SelectionProblem) -> SelectionResult:
    """Cover the target k-fold by lazy greedy; clusters whole until the budget is met.

    Options: `k` (1), neighbours.
    """
    name = "knn_kl"
    option_keys(problem, name, ("k",))
    empty = refused(name, problem)
    if empty is not None:
        return empty
    target = needs_points(name, problem)
    clusters = usable_clusters(problem)
    k = max(1, min(int(problem.options.get("k", 1)), len(target) - 1))
    path = knn_greedy(
        target,
        problem.pool_centroids[clusters],
        _enough(problem, clusters),
        k=k,
        weights=problem.target_weights,
    )
    return from_order(name, problem, clusters[path.order], path.divergence)


@register("energy_distance")
def select_energy_distance(problem: SelectionProblem) -> SelectionResult:
    """Greedy energy distance, clusters weighing as many rows as they have. No options."""
    name = "energy_distance"
    option_keys(problem, name, ())
    empty = refused(name, problem)
    if empty is not None:
        return empty
    target = needs_points(name, problem)
    clusters = usable_clusters(problem)
    path = energy_greedy(
        target,
        problem.pool_centroids[clusters],
        _enough(problem, clusters),
        sizes=problem.capacity[clusters],
        weights=problem.target_weights,
    )
    return from_order(name, problem, clusters[path.order], path.divergence)


def _enough(problem: SelectionProblem, clusters: NDArray) -> int:
    """Return how many picks surely meet the budget, whichever clusters they are."""
    smallest = np.cumsum(np.sort(problem.capacity[clusters]))
    return min(len(clusters), int(np.searchsorted(smallest, problem.resolved_budget())) + 1)
