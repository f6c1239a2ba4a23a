"""Cut vectors into cells of nearly equal size, as starts for the cells of two levels.

Lloyd steps from single vectors give cells of very unequal size in many dimensions: a centre near
the mean of all is near everything and takes most vectors (on 16,384 centroids x 384 nine tenths of
them, so that searching two cells cost 6,400 comparisons a row instead of 640). Cells that start as
halves of halves have centres of like length and stay balanced.
"""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

from gio_spark.kernels.search import FloatMatrix

_DIRECTION_ROWS = 512
_POWER_STEPS = 4
_BLOCK = 1024


def halved(matrix: FloatMatrix, cells: int) -> npt.NDArray[np.int32]:
    """Halve the largest cell along its main direction until there are enough.

    Args:
        matrix: (n, d) float32.
        cells: Cells wanted, at most n.

    Returns:
        (n,) int32 cell of each row; sizes differ by a factor of about two at most. The same on
        every machine: products are of whole numbers so small that float64 adds them exactly.
    """
    cell = np.zeros(len(matrix), dtype=np.int32)
    # Largest first; equal sizes by number.
    heap: list[tuple[int, int, npt.NDArray[np.intp]]] = [(-len(matrix), 0, np.arange(len(matrix)))]
    while len(heap) < cells:
        _, name, members = heapq.heappop(heap)
        place = _projection(matrix, members)
        order = np.argsort(place, kind="stable")
        half = len(members) // 2
        upper = np.sort(members[order[half:]])
        cell[upper] = len(heap) + 1
        heapq.heappush(heap, (half - len(members), len(heap) + 1, upper))
        heapq.heappush(heap, (-half, name, np.sort(members[order[:half]])))
    return cell


def _projection(matrix: FloatMatrix, members: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Return the members' places along the direction in which they vary most."""
    few = members[:: max(1, len(members) // _DIRECTION_ROWS)][:_DIRECTION_ROWS]
    sample = matrix[few]
    bits = (51 - int(max(sample.shape)).bit_length()) // 2 - 1
    # Block by block, as below: copies of all rows would be the largest thing in memory.
    largest = max(
        float(np.abs(matrix[members[start : start + _BLOCK]]).max())
        for start in range(0, len(members), _BLOCK)
    )
    step = float(np.ldexp(1.0, int(np.frexp(largest)[1]) - bits))
    middle = np.rint(np.rint(sample.astype(np.float64) / step).mean(axis=0))
    whole = np.rint(sample.astype(np.float64) / step) - middle
    direction = _few_bits(whole[int((whole * whole).sum(axis=1).argmax())], bits)
    for _ in range(_POWER_STEPS):
        direction = _few_bits(whole.T @ _few_bits(whole @ direction, bits), bits)
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
