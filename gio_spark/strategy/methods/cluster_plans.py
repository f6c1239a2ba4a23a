"""Methods that plan over clusters: the published objective, others, and the budgeted KL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gio_spark import gio
from gio_spark.errors import BudgetError
from gio_spark.explode import rank_keys
from gio_spark.strategy.methods.baselines import proportional
from gio_spark.strategy.methods.density_ratios import Estimator, hash53, log_ratio
from gio_spark.strategy.methods.hash_draws import generator, top_of_clusters
from gio_spark.strategy.methods.method_registry import MethodResult, method

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.strategy.evaluation_dataset import EvaluationDataset

#: Most target points that an objective gets.
MAX_POINTS = 4_000
#: Most target points for the published descent, which reads all points in each of 50 steps a pick.
MAX_DESCENT_POINTS = 1_000


def cluster_plan(
    dataset: EvaluationDataset,
    objective: str,
    budget: int,
    seed: int,
    *,
    points: int = 0,
    options: Mapping[str, Any] | None = None,
) -> tuple[NDArray[np.int64], str]:
    """Allocation of a budget over clusters, (K,) int64, and a note.

    If the clusters that an objective uses have fewer rows than the budget, all their rows are
    taken and the other clusters fill the budget in proportion to their sizes. This is the limit of
    a replay share that becomes as small as possible.

    Args:
        dataset: Dataset of the bake-off.
        objective: Name of a registered objective of `gio_spark.gio`.
        budget: Number of rows.
        seed: Seed of the objective and of the sample of target points.
        points: Most target points that the objective gets; 0: it needs none.
        options: Options of the objective.
    """
    sizes = dataset.sizes

    def problem(amount: int) -> gio.SelectionProblem:
        return gio.SelectionProblem(
            pool_centroids=dataset.centroids,
            sizes=sizes,
            target_mass=dataset.target_mass,
            budget=amount,
            target_centroids=_target_points(dataset, seed, points) if points else None,
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
    missing = budget - int(take.sum())
    if missing > 0:
        note = note or f"The objective left {missing} rows open; they are taken in proportion."
        take = take + proportional(sizes - take, missing)
    return take, note


def _target_points(dataset: EvaluationDataset, seed: int, limit: int) -> NDArray[np.float32]:
    vectors = dataset.target_vectors
    if len(vectors) <= limit:
        return vectors
    drawn = generator(seed, "target points").choice(len(vectors), limit, replace=False)
    return vectors[np.sort(drawn)]


def rows_by_rule(
    dataset: EvaluationDataset,
    take: NDArray[np.int64],
    seed: int,
    *,
    rule: str = "exact_count",
    ratio: NDArray[np.float64] | None = None,
    temperature: float = 0.0,
) -> NDArray[np.int64]:
    """Rows of an allocation over clusters, by a within-cluster rule of the explode stage."""
    hashes = hash53(dataset, seed, "explode")
    keys = _dense_ranks(rank_keys(rule, hashes, ratio, temperature=temperature))
    return top_of_clusters(dataset.cluster, take, keys, dataset.weights)


def _dense_ranks(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Dense ranks of int64 keys, which fit the float64 scores of rankings."""
    return np.unique(values, return_inverse=True)[1]


def _register_objective(
    name: str, objective: str, text: str, *, points: int = MAX_POINTS, **options: Any
) -> None:
    def select_rows(dataset: EvaluationDataset, budget: int, seed: int) -> MethodResult:
        take, note = cluster_plan(dataset, objective, budget, seed, points=points, options=options)
        return MethodResult(rows_by_rule(dataset, take, seed), note)

    select_rows.__doc__ = text
    method(name, needs=("target_vectors",))(select_rows)


_register_objective("published_exact", "published_exact",
       "Take whole clusters by the published objective, solved exactly.")  # fmt: skip
_register_objective("published_jump", "published",
       "Take whole clusters by the published algorithm with v_init='jump'.",
       points=MAX_DESCENT_POINTS, v_init="jump")  # fmt: skip
_register_objective("knn_kl", "knn_kl", "Take whole clusters by greedy k-NN KL (k = 1).")
_register_objective(
    "energy_distance", "energy_distance", "Take whole clusters by greedy energy distance."
)


@method("kl_hash", weighted=True)
def kl_hash(dataset: EvaluationDataset, budget: int, seed: int) -> MethodResult:
    """Fill the budgeted KL's quotas at random."""
    take, note = cluster_plan(dataset, "budgeted_kl", budget, seed)
    return MethodResult(rows_by_rule(dataset, take, seed), note)


def _register_ratio_rule(name: str, estimator: Estimator, temperature: float) -> None:
    def select_rows(dataset: EvaluationDataset, budget: int, seed: int) -> MethodResult:
        take, note = cluster_plan(dataset, "budgeted_kl", budget, seed)
        ratio = log_ratio(dataset, seed, estimator)
        rows = rows_by_rule(
            dataset,
            take,
            seed,
            rule="density_ratio",
            ratio=ratio.log_ratio,
            temperature=temperature,
        )
        return MethodResult(rows, f"{note} {ratio.note}".strip())

    select_rows.__doc__ = (
        f"Fill the budgeted KL's quotas by the {estimator}'s density ratio, temperature "
        f"{temperature:g}."
    )
    method(name, needs=("target_vectors",), weighted=True)(select_rows)


for _prefix, _estimator in (("kl_ratio", "classifier"), ("kl_knn", "knn")):
    for _suffix, _temperature in (("t0", 0.0), ("t025", 0.25), ("t1", 1.0)):
        _register_ratio_rule(f"{_prefix}_{_suffix}", _estimator, _temperature)  # type: ignore[arg-type]
