"""Exact sums per cluster: the same bits in any order of their terms.

Every value is first rounded to a fixed grid (a power of two per dimension), fine enough to be far
below float32's own rounding of the largest value; sums of grid values stay exact as long as they
fit float64's 53 bits, so partitions, batches and retries may add them in any order. This is fixed
point arithmetic kept in float64, where numpy and scipy are quickest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

_SIGNIFICANT = 52
_BLOCK = 32_768


@dataclass(frozen=True)
class Grid:
    """A fixed-point grid per dimension.

    Attributes:
        step: (d,) float64, powers of two: the distance of neighboring grid values.
        limit: (d,) float64: sums of absolute values up to here are exact.
    """

    step: npt.NDArray[np.float64]
    limit: npt.NDArray[np.float64]

    @classmethod
    def covering(cls, largest: npt.ArrayLike, rows: int) -> Grid:
        """Build the finest grid on which `rows` values up to `largest` add up exactly.

        Args:
            largest: (d,) largest absolute value expected in each dimension.
            rows: Number of values that may meet in one sum.
        """
        bound = np.maximum(np.asarray(largest, dtype=np.float64), np.finfo(np.float32).tiny)
        _, exponent = np.frexp(bound)
        bits = max(1, int(rows)).bit_length()
        step = np.ldexp(1.0, exponent + bits - _SIGNIFICANT)
        return cls(step=step, limit=step * 2.0**_SIGNIFICANT)

    def round(self, values: npt.NDArray) -> npt.NDArray[np.float64]:
        """Round `values` (n, d) to the grid as float64, ties to even."""
        # Adding and taking away 1.5 * 2^52 steps rounds to a multiple of the step in two passes.
        magic = self.step * (1.5 * 2.0**52)
        out = np.add(values, magic, dtype=np.float64)
        out -= magic
        return out

    def covers(self, largest: npt.NDArray, rows: int) -> bool:
        """Whether sums of `rows` rows of values up to `largest` are exact on this grid."""
        total = np.asarray(largest, dtype=np.float64) * max(1, rows)
        return bool((total <= self.limit).all())


def sums_by_cluster(
    values: npt.NDArray[np.float64], cluster: npt.NDArray[np.integer], clusters: int
) -> npt.NDArray[np.float64]:
    """Sum of the rows of each cluster.

    Args:
        values: (n, d) float64, on a grid.
        cluster: (n,) index of each row's cluster.
        clusters: K.

    Returns:
        (K, d) float64, exact when the values are on a grid that covers their number.
    """
    order = np.argsort(cluster, kind="stable")
    starts = np.searchsorted(cluster, np.arange(clusters + 1), sorter=order)
    indicator = sparse.csr_matrix(
        (np.ones(len(order)), order, starts), shape=(clusters, len(order))
    )
    return np.asarray(indicator @ values)


def rounded_sums(
    matrix: npt.NDArray[np.float32], cluster: npt.NDArray[np.integer], clusters: int, grid: Grid
) -> npt.NDArray[np.float64]:
    """Sum of the rows of each cluster, rounded to a grid block by block.

    Args:
        matrix: (n, d) float32; no float64 copy of it is made.
        cluster: (n,) index of each row's cluster.
        clusters: K.
        grid: Grid that covers n rows.

    Returns:
        (K, d) float64, exact.
    """
    out = np.zeros((clusters, matrix.shape[1]))
    for start in range(0, len(matrix), _BLOCK):
        part = slice(start, start + _BLOCK)
        out += sums_by_cluster(grid.round(matrix[part]), cluster[part], clusters)
    return out
