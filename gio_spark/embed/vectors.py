"""Embedder of existing vectors, which are checked and cast to float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.embed.embedder import (
    EMPTY_CONTENT,
    NULL_CONTENT,
    Embedder,
    Result,
    State,
    check_vectors,
    column,
    no_reasons,
    set_reason,
)
from gio_spark.engine.arrow import bytes_of
from gio_spark.errors import InputError

# Enough rows to determine the common length, the only thing that is fitted.
_LENGTH_SAMPLE = 1000


@dataclass(frozen=True)
class VectorEmbedder(Embedder):
    """Vectors of an input column, as float32 bytes or arrays of numbers.

    Without a dimension in the settings, it is the most common length in a sample of the pool, so
    that a target with vectors of another length is detected.
    """

    name: ClassVar[str] = "vectors"
    knows_dimension: ClassVar[bool] = False

    @property
    def revision(self) -> str:
        """Format version."""
        return "1"

    @property
    def needs_fit(self) -> bool:
        """Whether the dimension must be determined from data."""
        return self.settings.dimension is None

    @property
    def fit_rows(self) -> int:
        """Number of rows from which the length is determined."""
        return min(_LENGTH_SAMPLE, self.settings.fit_rows)

    @property
    def dimension(self) -> int:
        """Dimension of the settings, else the fitted one."""
        return self.settings.dimension or int(self.fitted("dimension")[0])

    @property
    def reads(self) -> tuple[str, ...]:
        """The vector column."""
        return (self._column(),)

    def _column(self) -> str:
        if self.columns.vector is None:
            raise InputError("Embedder 'vectors' needs columns.vector: name the vector column.")
        return self.columns.vector

    def fit(self, sample: pa.Table) -> State:
        """Most common length (the shortest of equally common ones)."""
        array = column(sample, self._column())
        all_lengths, _ = flat_lists(array)
        lengths = all_lengths[all_lengths > 0]
        if not len(lengths):
            nulls = int(array.null_count)
            raise InputError(
                f"column {self._column()!r} has no vector in {len(array):,} sampled rows "
                f"({nulls:,} null, {int((all_lengths == 0).sum()) - nulls:,} empty, "
                f"{int((all_lengths < 0).sum()):,} of bytes that are not whole float32 values). "
                "Name the column that holds them in columns.vector, or fill it."
            )
        values, counts = np.unique(lengths, return_counts=True)
        return {"dimension": np.array([values[counts.argmax()]], dtype=np.int64)}

    def embed(self, rows: pa.Table) -> Result:
        """Check lengths and values, and scale to length one if set."""
        array = column(rows, self._column())
        vectors, reasons = equal_rows(array, self.dimension, np.dtype(np.float32))
        return check_vectors(vectors, reasons, normalize=self.normalize)


def equal_rows(array: pa.Array, dimension: int, dtype: np.dtype) -> Result:
    """Lists or float32 bytes as a matrix, with reasons for rows of another length.

    Args:
        array: Binary, or list of numbers, n rows.
        dimension: Expected length.
        dtype: Element type of the matrix.

    Returns:
        Matrix (n, dimension), zero where there is a reason, and reasons (n,).
    """
    rows = len(array)
    reasons = no_reasons(rows)
    lengths, values = flat_lists(array)
    set_reason(reasons, np.asarray(array.is_null()), NULL_CONTENT)
    set_reason(reasons, lengths == 0, EMPTY_CONTENT)
    if _is_binary(array.type):
        set_reason(reasons, lengths < 0, "wrong length: bytes are not whole float32 values")
    has_length = lengths == dimension
    with np.errstate(
        over="ignore"
    ):  # values beyond float32 become infinite, which sets a reason later
        values = np.ascontiguousarray(values, dtype=dtype)
    if has_length.all():
        return values.reshape(rows, dimension), reasons
    for length in np.unique(lengths[~has_length]):
        set_reason(reasons, lengths == length, f"wrong length: {length} instead of {dimension}")
    matrix = np.zeros((rows, dimension), dtype=dtype)
    matrix[has_length] = values[np.repeat(has_length, np.maximum(lengths, 0))].reshape(
        -1, dimension
    )
    return matrix, reasons


def flat_lists(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Length of each row (null: 0, bytes that are not float32: -1), and all values.

    The values of rows with a length above 0 are concatenated, without a copy where Arrow's layout
    allows it.
    """
    arrow_type = array.type
    if pa.types.is_null(arrow_type):
        return np.zeros(len(array), np.int64), np.empty(0, np.float32)
    if _is_binary(arrow_type):
        return _flat_binary(array)
    if not (
        pa.types.is_list(arrow_type)
        or pa.types.is_large_list(arrow_type)
        or pa.types.is_fixed_size_list(arrow_type)
    ):
        raise InputError(
            f"Vectors or pixels cannot be read from {arrow_type}: use an array of numbers, or "
            "bytes."
        )
    value_type = arrow_type.value_type
    if not (pa.types.is_floating(value_type) or pa.types.is_integer(value_type)):
        raise InputError(f"Arrays of {value_type} are no vectors: use an array of numbers.")
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    flat = array.flatten()
    if flat.null_count:
        flat = pc.fill_null(flat.cast(pa.float64(), safe=False), float("nan"))
    return lengths.astype(np.int64), flat.to_numpy(zero_copy_only=False)


def _is_binary(arrow_type: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_binary(arrow_type)
        or types.is_large_binary(arrow_type)
        or types.is_fixed_size_binary(arrow_type)
    )


def _flat_binary(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    encoded = pc.fill_null(array.cast(pa.large_binary()), b"")
    sizes = pc.binary_length(encoded).to_numpy(zero_copy_only=False).astype(np.int64)
    lengths = np.where(sizes % 4 == 0, sizes // 4, -1)
    if (lengths < 0).any():
        encoded = pc.if_else(pa.array(lengths < 0), pa.scalar(b"", pa.large_binary()), encoded)
    return lengths, bytes_of(encoded)[0].view("<f4")
