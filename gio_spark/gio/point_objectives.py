"""Objectives on points: published, published_exact, knn_kl and energy_distance."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from gio_spark.errors import ConfigError
from gio_spark.gio.greedy_energy import energy_greedy
from gio_spark.gio.greedy_knn import knn_greedy
from gio_spark.gio.published_algorithm import published_run
from gio_spark.gio.published_exact import exact_path
from gio_spark.gio.published_options import PublishedOptions
from gio_spark.gio.ranking import empty_if_out_of_reach, from_order, target_points, usable_clusters
from gio_spark.gio.selection_problem import SelectionProblem, SelectionResult, objective


def check_options(problem: SelectionProblem, name: str, known: tuple[str, ...]) -> None:
    """Check that the objective knows all options of the problem.

    Raises:
        ConfigError: An option is unknown; the known ones are listed.
    """
    shared = ("kappa", "heldout_budget")
    for key in problem.options:
        if key not in known and key not in shared:
            raise ConfigError(
                f"The objective {name!r} has no option {key!r}. Known: {', '.join(known)}."
            )


@objective("published_exact")
def select_published_exact(problem: SelectionProblem) -> SelectionResult:
    """Solve the published objective exactly: entire clusters by score until the budget is met.

    Source: Everaert and Potts, arXiv 2306.11670. Options: `k` (5), the neighbor used inside the
    target; `stop` ("budget" or "increase", the published criterion: stop before the divergence
    rises).
    """
    name = "published_exact"
    check_options(problem, name, ("k", "stop"))
    empty = empty_if_out_of_reach(name, problem)
    if empty is not None:
        return empty
    target = target_points(name, problem)
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


@objective("published")
def select_published(problem: SelectionProblem) -> SelectionResult:
    """Run the published algorithm on the centroids: entire clusters until the budget is met.

    Source: Everaert and Potts, arXiv 2306.11670. Options: those of `PublishedOptions` by their
    published names, and `D`. Without a `stop_criterion` it picks until the budget is met; with one
    it may stop before. A cluster picked again after a reset counts once.
    """
    name = "published"
    known = ("D", *(field.name for field in fields(PublishedOptions)))
    check_options(problem, name, known)
    empty = empty_if_out_of_reach(name, problem)
    if empty is not None:
        return empty
    target = target_points(name, problem)
    clusters = usable_clusters(problem)
    published_options = {key: problem.options[key] for key in problem.options if key in known[1:]}
    stops_early = "stop_criterion" in published_options
    if not stops_early:
        published_options |= {"stop_criterion": "min_kl", "min_kl": -np.inf}
    published_options.setdefault("max_iter", len(clusters))
    published_options["k"] = min(int(published_options.get("k", 5)), len(target) - 1)
    remaining = problem.resolved_budget()
    available = problem.capacity[clusters]
    picked: set[int] = set()

    def budget_is_met(pick: int) -> bool:
        nonlocal remaining
        remaining -= 0.0 if pick in picked else float(available[pick])
        picked.add(pick)
        return remaining <= 0

    run = published_run(
        target,
        problem.pool_centroids[clusters],
        PublishedOptions.of(**published_options),
        D=problem.options.get("D"),
        seed=problem.seed,
        until=budget_is_met,
    )
    _, first = np.unique(run.order, return_index=True)
    first.sort()
    order = clusters[run.order[first]]
    return from_order(name, problem, order, run.divergence[first], stopped=stops_early)


@objective("knn_kl")
def select_knn_kl(problem: SelectionProblem) -> SelectionResult:
    """Cover the target k-fold by greedy gains: entire clusters until the budget is met.

    Options: `k` (1), the number of neighbors.
    """
    name = "knn_kl"
    check_options(problem, name, ("k",))
    empty = empty_if_out_of_reach(name, problem)
    if empty is not None:
        return empty
    target = target_points(name, problem)
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


@objective("energy_distance")
def select_energy_distance(problem: SelectionProblem) -> SelectionResult:
    """Greedy energy distance of entire clusters, each weighted by its rows. No options."""
    name = "energy_distance"
    check_options(problem, name, ())
    empty = empty_if_out_of_reach(name, problem)
    if empty is not None:
        return empty
    target = target_points(name, problem)
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
    """Number of picks that meets the budget whichever clusters they are."""
    smallest = np.cumsum(np.sort(problem.capacity[clusters]))
    return min(len(clusters), int(np.searchsorted(smallest, problem.resolved_budget())) + 1)
