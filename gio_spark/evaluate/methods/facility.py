"""Facility location on the target: cover every target row, then stay near the target.

The form for a target (Iyer and others 2021, facility location mutual information): the sum over
target rows of their similarity to the nearest pick, and over picks of theirs to the nearest target
row. The known packages are no help: apricot-select needs numba and a test runner that no longer
works, submodlib-py compiled wheels, and both a whole similarity matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gio_spark.evaluate.methods.base import method
from gio_spark.evaluate.methods.draws import keys
from gio_spark.evaluate.methods.neighbours import centred, target_distance
from gio_spark.evaluate.methods.shared import shared
from gio_spark.gio.distances import squared_distances, squared_norms

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.evaluate.dataset import EvaluationDataset

#: Stochastic greedy reaches 1 - 1/e - this share of the optimum in expectation.
LOSS = 0.1
#: Weight of a pick's own similarity beside its gain in coverage.
OWN = 1.0
#: Similarities are kept for all budgets and seeds up to so many bytes.
KEPT_BYTES = 512 * 2**20
_TILE_ROWS = 2_048


@method("facility_location", needs=("target_vectors",))
def facility_location(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Cover the target rows by stochastic greedy facility location.

    Each pick is the best of a small random sample of (n / budget) log(1 / loss) rows that are not
    picked yet (Mirzasoleiman and others 2015). Similarity is exp(-d^2 / w^2), w the median
    distance of a pool row to its nearest target row.
    """
    away = target_distance(dataset)
    width = max(float(np.median(away)) ** 2, 1e-12)
    own = (OWN * np.exp(-np.square(away.astype(np.float64)) / width)).astype(np.float32)
    target, pool = centred(dataset)
    norms = squared_norms(target)
    alike = None
    if 4 * dataset.rows * len(target) <= KEPT_BYTES:
        alike = shared(dataset, "facility", lambda: _alike(pool, target, norms, width))
    covered = np.zeros(len(target), dtype=np.float32)
    free = np.ones(dataset.rows, dtype=bool)
    left, turn = budget, 0
    sample = max(1, int(np.ceil(dataset.rows / budget * np.log(1.0 / LOSS))))
    while left > 0:
        rows = np.flatnonzero(free)
        if left >= len(rows):
            free[rows] = False
            break
        rows = rows[np.argsort(keys(dataset, seed, f"facility {turn}")[rows], kind="stable")]
        sample = min(sample, len(rows))
        step = max(1, _TILE_ROWS // sample) * sample
        for start in range(0, len(rows) - sample + 1, step):
            part = rows[start : start + step]
            tile = alike[part] if alike is not None else _alike(pool[part], target, norms, width)
            for first in range(0, len(part) - sample + 1, sample):
                gain = np.maximum(tile[first : first + sample] - covered, 0.0).sum(axis=1)
                gain += own[part[first : first + sample]]
                best = first + int(np.argmax(gain))
                np.maximum(covered, tile[best], out=covered)
                free[part[best]] = False
                left -= 1
                if left == 0:
                    break
            if left == 0:
                break
        turn += 1
    return np.flatnonzero(~free).astype(np.int64)


def _alike(
    rows: NDArray[np.float32],
    target: NDArray[np.float32],
    norms: NDArray[np.float32],
    width: float,
) -> NDArray[np.float32]:
    """Similarities of some rows to the target's, (rows, m) float32."""
    out = squared_distances(rows, target, right_norms=norms)
    out /= -width
    np.exp(out, out=out)
    return out
