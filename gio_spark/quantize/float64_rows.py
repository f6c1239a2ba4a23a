"""Float64 rows as Arrow binary, for partial sums exchanged between workers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gio_spark.engine.arrow import bytes_of, joined
from gio_spark.errors import InputError


def encode_doubles(matrix: npt.NDArray[np.float64]) -> pa.Array:
    """Encode (n, d) float64 as n binary values, little endian.

    Raises:
        InputError: The batch exceeds Arrow's limit of 2 GB for a binary column.
    """
    matrix = np.ascontiguousarray(matrix, dtype="<f8")
    rows, dimension = matrix.shape
    if matrix.nbytes > np.iinfo(np.int32).max:
        raise InputError(
            f"{rows} sums of {dimension} numbers do not fit one Arrow batch: use fewer clusters"
        )
    offsets = np.arange(rows + 1, dtype=np.int32) * np.int32(8 * dimension)
    return pa.Array.from_buffers(
        pa.binary(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(matrix.reshape(-1))]
    )


def decode_doubles(column: pa.ChunkedArray | pa.Array, dimension: int) -> npt.NDArray[np.float64]:
    """Decode the output of `encode_doubles` to (n, d) float64, read-only and without a copy.

    Raises:
        InputError: A value has another length.
    """
    column = joined(column)
    rows = len(column)
    if not rows:
        return np.empty((0, dimension), dtype=np.float64)
    is_large = pa.types.is_large_binary(column.type)
    if not is_large and not pa.types.is_binary(column.type):
        column = column.cast(pa.binary())
    data, offsets = bytes_of(column)
    if not (np.diff(offsets) == 8 * dimension).all():
        raise InputError(f"partial sums are not rows of {dimension} doubles")
    return data.view("<f8").reshape(rows, dimension)
