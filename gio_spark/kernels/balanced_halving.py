"""Groups of vectors of nearly equal size, as starting points for a two-level codebook.

Lloyd steps from single vectors give groups of very unequal size in many dimensions: a center near
the mean of all vectors is near everything and takes most of them (on 16,384 centroids x 384 nine
tenths of them, so that searching two groups cost 6,400 comparisons a row instead of 640). Groups
that start as halves of halves have centers of similar length and stay balanced.
"""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

from gio_spark.kernels.nearest_centroid import FloatMatrix

_DIRECTION_ROWS = 512
_POWER_STEPS = 4
_BLOCK = 1024


def balanced_groups(matrix: FloatMatrix, group_count: int) -> npt.NDArray[np.int32]:
    """Halve the largest group along its main direction until there are enough groups.

    Args:
        matrix: (n, d) float32.
        group_count: Number of groups, at most n.

    Returns:
        (n,) int32 group of each row; sizes differ by a factor of about two at most. The groups are
        the same on every machine, because products are of whole numbers so small that float64 adds
        them exactly.
    """
    group = np.zeros(len(matrix), dtype=np.int32)
    # Largest first; equal sizes by number.
    heap: list[tuple[int, int, npt.NDArray[np.intp]]] = [(-len(matrix), 0, np.arange(len(matrix)))]
    while len(heap) < group_count:
        _, label, members = heapq.heappop(heap)
        projection = _projection(matrix, members)
        order = np.argsort(projection, kind="stable")
        middle = len(members) // 2
        upper = np.sort(members[order[middle:]])
        group[upper] = len(heap) + 1
        heapq.heappush(heap, (middle - len(members), len(heap) + 1, upper))
        heapq.heappush(heap, (-middle, label, np.sort(members[order[:middle]])))
    return group


def _projection(matrix: FloatMatrix, members: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Project the members on the direction in which they vary most."""
    sampled = members[:: max(1, len(members) // _DIRECTION_ROWS)][:_DIRECTION_ROWS]
    sample = matrix[sampled]
    bits = (51 - int(max(sample.shape)).bit_length()) // 2 - 1
    # Block by block, as below: copies of all rows would be the largest thing in memory.
    largest = max(
        float(np.abs(matrix[members[start : start + _BLOCK]]).max())
        for start in range(0, len(members), _BLOCK)
    )
    step = float(np.ldexp(1.0, int(np.frexp(largest)[1]) - bits))
    center = np.rint(np.rint(sample.astype(np.float64) / step).mean(axis=0))
    centered = np.rint(sample.astype(np.float64) / step) - center
    direction = _few_bits(centered[int((centered * centered).sum(axis=1).argmax())], bits)
    for _ in range(_POWER_STEPS):
        direction = _few_bits(centered.T @ _few_bits(centered @ direction, bits), bits)
    out = np.empty(len(members))
    buffer = np.empty((min(len(members), _BLOCK), matrix.shape[1]))
    for start in range(0, len(members), _BLOCK):
        rows = matrix[members[start : start + _BLOCK]]
        part = buffer[: len(rows)]
        np.multiply(rows, 1.0 / step, out=part)
        np.rint(part, out=part)
        np.matmul(part, direction, out=out[start : start + len(rows)])
    return out


def _few_bits(values: npt.NDArray[np.float64], bits: int) -> npt.NDArray[np.float64]:
    """Round to whole numbers of at most `bits` bits, relative to the largest."""
    _, exponent = np.frexp(float(np.abs(values).max(initial=0.0)))
    return np.rint(np.ldexp(values, bits - int(exponent)))
