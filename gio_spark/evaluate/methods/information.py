"""Selection by information metrics (GIME), alone and on the budgeted KL's law.

Which metrics matter is found by sensitivity runs, which need labels; a method must do without. So
what any target asks for is pursued: little mismatch and full coverage, with thresholds at a share
of what random tilts of the pool attain at this budget.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from gio_spark import gime
from gio_spark.engine import encode_vectors
from gio_spark.evaluate.methods.base import Chosen, method
from gio_spark.evaluate.methods.draws import generator
from gio_spark.evaluate.methods.plans import plan
from gio_spark.evaluate.methods.shared import shared
from gio_spark.gime.exact import on_grid
from gio_spark.gime.subsets import random_tilts, tilts_of
from gio_spark.kernels import nearest, paired_distances

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.evaluate.dataset import EvaluationDataset

WANTED = {"mismatch": "high", "coverage": "high"}
#: Share of the way from the worst to the best value attained that a metric must reach.
SHARE = 0.9
TILTS = 8
TRIES = 6
PROBES = 128


def sample_of(dataset: EvaluationDataset) -> gime.Sample:
    """Pool as a sample of the text profile: cells, distances, vectors, tokens."""

    def make() -> gime.Sample:
        drawn = generator(0, "probes").permutation(len(dataset.target_vectors))[:PROBES]
        probes = dataset.target_vectors[np.sort(drawn)]
        constants = gime.Constants(
            {
                "clusters": len(dataset.centroids),
                "dimension": dataset.vectors.shape[1],
                "probe_grid": on_grid(probes),
            }
        )
        cells, _ = nearest(dataset.target_vectors, dataset.centroids)
        return gime.Sample.from_arrow(
            _table(dataset.vectors, dataset.cluster, dataset.centroids, dataset.tokens),
            "text",
            constants,
            _table(dataset.target_vectors, cells, dataset.centroids, None),
        )

    return shared(dataset, "information sample", make)


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
    """Thresholds of the metrics pursued, at a share of what random tilts attain."""
    _, subsets = random_tilts(tilts_of(sample, seed), TILTS, budget)
    seen = [sample.metrics(rows) for rows in subsets]
    found = []
    for metric, kind in WANTED.items():
        values = [one[metric] for one in seen if metric in one]
        sign = directions.get(metric, 0)
        if values and sign:
            low, high = min(values), max(values)
            worst, best = (low, high) if sign > 0 else (high, low)
            direction = "more" if sign > 0 else "less"
            found.append(gime.Threshold.at_share(metric, SHARE, worst, best, direction, kind))
    return found


def _select(
    dataset: EvaluationDataset, budget: int, seed: int, law: NDArray[np.float64] | None, note: str
) -> Chosen:
    sample = sample_of(dataset)
    directions = sample.directions()
    limits = thresholds(sample, budget, seed, directions)
    found = gime.select(
        sample,
        dataset.cluster.astype(np.int64),
        budget,
        limits,
        WANTED,
        directions,
        target_mass=law,
        seed=seed,
        tries=TRIES,
    )
    said = "All thresholds met." if found.verdict.passed else found.verdict.why.replace("\n", " ")
    return Chosen(found.rows.astype(np.int64), f"{note} {said}".strip())


@method("gime", needs=("target_vectors",))
def gime_cells(dataset: EvaluationDataset, budget: int, seed: int) -> Chosen:
    """Select by information metrics: quotas per cell under thresholds of mismatch and coverage."""
    return _select(dataset, budget, seed, None, "")


@method("gime_gio", needs=("target_vectors",))
def gime_gio(dataset: EvaluationDataset, budget: int, seed: int) -> Chosen:
    """Select by information metrics on the budgeted KL's plan, so that one plan satisfies both."""
    take, note = plan(dataset, "budgeted_kl", budget, seed)
    return _select(dataset, budget, seed, take / budget, note)
