"""Facility location on the target: cover every target row, then stay near the target.

The objective for a target (Iyer and others 2021, facility location mutual information) is the sum
over target rows of their similarity to the nearest pick, plus the sum over picks of their
similarity to the nearest target row. Existing packages do not fit: apricot-select needs numba and
a test runner that no longer works, submodlib-py needs compiled wheels, and both need the full
similarity matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gio_spark.gio.distances import squared_distances, squared_norms
from gio_spark.strategy.methods.hash_draws import row_keys
from gio_spark.strategy.methods.method_registry import method
from gio_spark.strategy.methods.neighbor_lists import centered, target_distance
from gio_spark.strategy.methods.shared_work import compute_once

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.strategy.evaluation_dataset import EvaluationDataset

#: Stochastic greedy reaches 1 - 1/e - this share of the optimum in expectation.
LOSS = 0.1
#: Weight of the similarity of a pick to the target, relative to its gain in coverage.
OWN_WEIGHT = 1.0
#: Similarities up to this size are computed once for all budgets and seeds.
MAX_SIMILARITY_BYTES = 512 * 2**20
_TILE_ROWS = 2_048


@method("facility_location", needs=("target_vectors",))
def facility_location(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Cover the target rows by stochastic greedy facility location.

    Each pick is the best of a small random sample of (n / budget) log(1 / loss) rows that are not
    picked yet (Mirzasoleiman and others 2015). Similarity is exp(-d^2 / w^2), w the median
    distance of a pool row to its nearest target row.
    """
    distance = target_distance(dataset)
    width = max(float(np.median(distance)) ** 2, 1e-12)
    own_gain = (OWN_WEIGHT * np.exp(-np.square(distance.astype(np.float64)) / width)).astype(
        np.float32
    )
    target, pool = centered(dataset)
    norms = squared_norms(target)
    similarities = None
    if 4 * dataset.rows * len(target) <= MAX_SIMILARITY_BYTES:
        similarities = compute_once(
            dataset, "facility", lambda: _similarities(pool, target, norms, width)
        )
    coverage = np.zeros(len(target), dtype=np.float32)
    is_free = np.ones(dataset.rows, dtype=bool)
    remaining, round_number = budget, 0
    sample = max(1, int(np.ceil(dataset.rows / budget * np.log(1.0 / LOSS))))
    while remaining > 0:
        rows = np.flatnonzero(is_free)
        if remaining >= len(rows):
            is_free[rows] = False
            break
        rows = rows[
            np.argsort(row_keys(dataset, seed, f"facility {round_number}")[rows], kind="stable")
        ]
        sample = min(sample, len(rows))
        step = max(1, _TILE_ROWS // sample) * sample
        for start in range(0, len(rows) - sample + 1, step):
            block = rows[start : start + step]
            tile = (
                similarities[block]
                if similarities is not None
                else _similarities(pool[block], target, norms, width)
            )
            for sample_start in range(0, len(block) - sample + 1, sample):
                gain = np.maximum(tile[sample_start : sample_start + sample] - coverage, 0.0).sum(
                    axis=1
                )
                gain += own_gain[block[sample_start : sample_start + sample]]
                best = sample_start + int(np.argmax(gain))
                np.maximum(coverage, tile[best], out=coverage)
                is_free[block[best]] = False
                remaining -= 1
                if remaining == 0:
                    break
            if remaining == 0:
                break
        round_number += 1
    return np.flatnonzero(~is_free).astype(np.int64)


def _similarities(
    rows: NDArray[np.float32],
    target: NDArray[np.float32],
    norms: NDArray[np.float32],
    width: float,
) -> NDArray[np.float32]:
    """Similarities of rows to the target rows, (rows, m) float32."""
    similarities = squared_distances(rows, target, right_norms=norms)
    similarities /= -width
    np.exp(similarities, out=similarities)
    return similarities
