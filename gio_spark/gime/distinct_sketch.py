"""Distinct counts by Apache DataSketches that are the same to the last bit in any partitioning.

The estimates of an HLL sketch differ with the partitioning (its estimator depends on the order of
insertion). Those of a theta sketch that is trimmed to its nominal size before each merge do not:
it then has exactly the k smallest hashes, in any order of merging. It is exact up to k values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import datasketches
import numpy as np

from gio_spark.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


_LOOKED_AT = 64


def distinct(values: NDArray[Any], log_size: int) -> NDArray[np.uint8]:
    """Sketch of the distinct values of an integer array.

    Args:
        values: Integers (hashes of the values to count), shape (n,).
        log_size: log2 of the number of hashes in the sketch.

    Returns:
        Bytes of the sketch, the first one being `log_size`.
    """
    sketch = datasketches.update_theta_sketch(log_size)
    integers = np.asarray(values, np.int64)
    # Keys with few repeats go to the sketch as they are, since it ignores repeats itself.
    if np.unique(integers[:_LOOKED_AT]).size < min(_LOOKED_AT, integers.size):
        integers = np.unique(integers)
    for value in integers.tolist():
        sketch.update(value)
    sketch.trim()
    return _pack(sketch.compact(True), log_size)


def merge_distinct(parts: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Union of sketches; the result does not depend on the order or the partitioning.

    Raises:
        InputError: The sketches are of different sizes.
    """
    sizes = {int(part[0]) for part in parts}
    if len(sizes) != 1:
        raise InputError(f"Sketches of sizes 2^{sorted(sizes)} cannot merge; recompute the states.")
    log_size = sizes.pop()
    union = datasketches.theta_union(log_size)
    for part in parts:
        union.update(_unpack(part))
    return _pack(union.get_result(True), log_size)


def count_distinct(sketch: NDArray[np.uint8]) -> tuple[float, float]:
    """Estimated distinct count and its relative error bound (95 %); 0 means exact."""
    opened = _unpack(sketch)
    estimate = float(opened.get_estimate())
    if not opened.is_estimation_mode() or estimate == 0:
        return estimate, 0.0
    width = max(opened.get_upper_bound(2) - estimate, estimate - opened.get_lower_bound(2))
    return estimate, float(width / estimate)


def _pack(sketch: Any, log_size: int) -> NDArray[np.uint8]:
    return np.frombuffer(bytes([log_size]) + sketch.serialize(), np.uint8)


def _unpack(part: NDArray[np.uint8]) -> Any:
    return datasketches.compact_theta_sketch.deserialize(part[1:].tobytes())
