"""Selection by information metrics (GIME), alone and on the plan of the budgeted KL.

A sensitivity run, which needs labels, tells which metrics matter; a method has no labels. So the
metrics are those that suit any target, mismatch and coverage, with thresholds at a share of what
random tilts of the pool attain at this budget.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from gio_spark import gime
from gio_spark.engine import encode_vectors
from gio_spark.gime.mergeable_sums import on_grid
from gio_spark.gime.tilted_subsets import random_tilts, tilts_of
from gio_spark.kernels import nearest, paired_distances
from gio_spark.strategy.methods.cluster_plans import cluster_plan
from gio_spark.strategy.methods.hash_draws import generator
from gio_spark.strategy.methods.method_registry import MethodResult, method
from gio_spark.strategy.methods.shared_work import compute_once

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.strategy.evaluation_dataset import EvaluationDataset

METRICS = {"mismatch": "high", "coverage": "high"}
#: Position of a threshold between the worst and the best attained value, 0 to 1.
THRESHOLD_SHARE = 0.9
TILTS = 8
TRIES = 6
PROBES = 128


def sample_of(dataset: EvaluationDataset) -> gime.Sample:
    """Pool as a sample of the text profile, with clusters, distances, vectors and tokens."""

    def compute() -> gime.Sample:
        drawn = generator(0, "probes").permutation(len(dataset.target_vectors))[:PROBES]
        probes = dataset.target_vectors[np.sort(drawn)]
        constants = gime.Constants(
            {
                "clusters": len(dataset.centroids),
                "dimension": dataset.vectors.shape[1],
                "probe_grid": on_grid(probes),
            }
        )
        target_cluster, _ = nearest(dataset.target_vectors, dataset.centroids)
        return gime.Sample.from_arrow(
            _table(dataset.vectors, dataset.cluster, dataset.centroids, dataset.tokens),
            "text",
            constants,
            _table(dataset.target_vectors, target_cluster, dataset.centroids, None),
        )

    return compute_once(dataset, "information sample", compute)


def _table(
    vectors: NDArray[np.float32],
    cluster: NDArray[np.int32],
    centroids: NDArray[np.float32],
    tokens: NDArray[np.int64] | None,
) -> pa.Table:
    columns = {
        "vector": encode_vectors(vectors),
        "cluster": pa.array(cluster.astype(np.int64)),
        "distance": pa.array(paired_distances(vectors, centroids, cluster)),
    }
    if tokens is not None:
        columns["tokens"] = pa.array(tokens)
    return pa.table(columns)


def thresholds(
    sample: gime.Sample, budget: int, seed: int, directions: dict[str, int]
) -> list[gime.Threshold]:
    """Thresholds of the metrics, at a share of what random tilts attain."""
    _, subsets = random_tilts(tilts_of(sample, seed), TILTS, budget)
    subset_metrics = [sample.metrics(rows) for rows in subsets]
    thresholds = []
    for metric, kind in METRICS.items():
        values = [
            values_of_subset[metric]
            for values_of_subset in subset_metrics
            if metric in values_of_subset
        ]
        sign = directions.get(metric, 0)
        if values and sign:
            low, high = min(values), max(values)
            worst, best = (low, high) if sign > 0 else (high, low)
            direction = "more" if sign > 0 else "less"
            thresholds.append(
                gime.Threshold.at_share(metric, THRESHOLD_SHARE, worst, best, direction, kind)
            )
    return thresholds


def _select(
    dataset: EvaluationDataset,
    budget: int,
    seed: int,
    target_mass: NDArray[np.float64] | None,
    note: str,
) -> MethodResult:
    sample = sample_of(dataset)
    directions = sample.directions()
    limits = thresholds(sample, budget, seed, directions)
    selection = gime.select(
        sample,
        dataset.cluster.astype(np.int64),
        budget,
        limits,
        METRICS,
        directions,
        target_mass=target_mass,
        seed=seed,
        tries=TRIES,
    )
    verdict = (
        "All thresholds met."
        if selection.verdict.passed
        else selection.verdict.why.replace("\n", " ")
    )
    return MethodResult(selection.rows.astype(np.int64), f"{note} {verdict}".strip())


@method("gime", needs=("target_vectors",))
def gime_cells(dataset: EvaluationDataset, budget: int, seed: int) -> MethodResult:
    """Select by information metrics: quotas per cell under thresholds of mismatch and coverage."""
    return _select(dataset, budget, seed, None, "")


@method("gime_gio", needs=("target_vectors",))
def gime_gio(dataset: EvaluationDataset, budget: int, seed: int) -> MethodResult:
    """Select by information metrics on the budgeted KL's plan, so that one plan satisfies both."""
    take, note = cluster_plan(dataset, "budgeted_kl", budget, seed)
    return _select(dataset, budget, seed, take / budget, note)
