"""Objectives on clusters: the published one, its rivals, and the budgeted KL with each row rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gio_spark import gio
from gio_spark.errors import BudgetError
from gio_spark.evaluate.methods.base import Chosen, method
from gio_spark.evaluate.methods.draws import generator, within
from gio_spark.evaluate.methods.ratios import Estimator, hash53, log_ratio
from gio_spark.evaluate.methods.simple import proportional
from gio_spark.explode import rank_keys

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.evaluate.dataset import EvaluationDataset

#: Points of the target that an objective is given at most.
POINTS = 4_000
#: The same for the published descent, which visits all of them in each of its 50 steps a pick.
DESCENT_POINTS = 1_000


def plan(
    dataset: EvaluationDataset,
    objective: str,
    budget: int,
    seed: int,
    *,
    points: int = 0,
    options: Mapping[str, Any] | None = None,
) -> tuple[NDArray[np.int64], str]:
    """Rows to take of each cluster, (K,), and a note.

    Where the clusters that an objective uses hold less than the budget, all of them are taken and
    the rest comes from the others in proportion to what they hold, which is where a replay share
    leads as it goes to the least that works.

    Args:
        dataset: The dataset.
        objective: A registered objective of `gio_spark.gio`.
        budget: Rows.
        seed: Seed of the objective, and of the sample of the target's points.
        points: Most points of the target that the objective is given; 0: it needs none.
        options: Options of the objective.
    """
    sizes = dataset.sizes

    def problem(amount: int) -> gio.SelectionProblem:
        return gio.SelectionProblem(
            pool_centroids=dataset.centroids,
            sizes=sizes,
            target_mass=dataset.target_mass,
            budget=amount,
            target_centroids=_points(dataset, seed, points) if points else None,
            seed=seed,
            options=dict(options or {}),
        )

    note = ""
    try:
        take = gio.select(objective, problem(budget)).take
    except BudgetError as error:
        if not error.largest or error.largest >= budget:
            raise
        take = gio.select(objective, problem(int(error.largest))).take
        note = f"The target's clusters hold {int(take.sum())} rows; the rest is in proportion."
    take = np.asarray(take, dtype=np.int64)
    short = budget - int(take.sum())
    if short > 0:
        note = note or f"The objective left {short} rows open; they are taken in proportion."
        take = take + proportional(sizes - take, short)
    return take, note


def _points(dataset: EvaluationDataset, seed: int, most: int) -> NDArray[np.float32]:
    vectors = dataset.target_vectors
    if len(vectors) <= most:
        return vectors
    drawn = generator(seed, "target points").choice(len(vectors), most, replace=False)
    return vectors[np.sort(drawn)]


def by_rule(
    dataset: EvaluationDataset,
    take: NDArray[np.int64],
    seed: int,
    *,
    rule: str = "exact_count",
    ratio: NDArray[np.float64] | None = None,
    temperature: float = 0.0,
) -> NDArray[np.int64]:
    """`take` rows of each cluster by a within-cluster rule of the explode stage."""
    hashes = hash53(dataset, seed, "explode")
    return within(
        dataset.cluster, take, _rank(rank_keys(rule, hashes, ratio, temperature=temperature))
    )


def _rank(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ranks, since int64 keys do not fit the float64 that rankings use."""
    return np.unique(values, return_inverse=True)[1]


def _whole(name: str, objective: str, text: str, *, points: int = POINTS, **options: Any) -> None:
    def run(dataset: EvaluationDataset, budget: int, seed: int) -> Chosen:
        take, note = plan(dataset, objective, budget, seed, points=points, options=options)
        return Chosen(by_rule(dataset, take, seed), note)

    run.__doc__ = text
    method(name, needs=("target_vectors",))(run)


_whole("published_exact", "published_exact",
       "Take whole clusters by the published objective, solved exactly.")  # fmt: skip
_whole("published_jump", "published",
       "Take whole clusters by the published algorithm with v_init='jump'.",
       points=DESCENT_POINTS, v_init="jump")  # fmt: skip
_whole("knn_kl", "knn_kl", "Take whole clusters by greedy k-NN KL (k = 1).")
_whole("energy_distance", "energy_distance", "Take whole clusters by greedy energy distance.")


@method("kl_hash")
def kl_hash(dataset: EvaluationDataset, budget: int, seed: int) -> Chosen:
    """Fill the budgeted KL's quotas at random."""
    take, note = plan(dataset, "budgeted_kl", budget, seed)
    return Chosen(by_rule(dataset, take, seed), note)


def _ratio_rule(name: str, estimator: Estimator, temperature: float) -> None:
    def run(dataset: EvaluationDataset, budget: int, seed: int) -> Chosen:
        take, note = plan(dataset, "budgeted_kl", budget, seed)
        ratio = log_ratio(dataset, seed, estimator)
        rows = by_rule(
            dataset,
            take,
            seed,
            rule="density_ratio",
            ratio=ratio.log_ratio,
            temperature=temperature,
        )
        return Chosen(rows, f"{note} {ratio.note}".strip())

    run.__doc__ = (
        f"Fill the budgeted KL's quotas by the {estimator}'s density ratio, temperature "
        f"{temperature:g}."
    )
    method(name, needs=("target_vectors",))(run)


for _prefix, _estimator in (("kl_ratio", "classifier"), ("kl_knn", "knn")):
    for _suffix, _temperature in (("t0", 0.0), ("t025", 0.25), ("t1", 1.0)):
        _ratio_rule(f"{_prefix}_{_suffix}", _estimator, _temperature)  # type: ignore[arg-type]
