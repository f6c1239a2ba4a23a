"""Batch of rows for accumulators: numpy columns by role, with masks of missing values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Column:
    """Values of one role; where `valid` is False the value is a placeholder, never data.

    Attributes:
        values: Shape (n,), or (n, d) for vectors; an Arrow array for the kind "arrow".
        valid: Shape (n,).
    """

    values: Any
    valid: NDArray[np.bool_]

    def valid_values(self) -> Any:
        """Values that are not missing."""
        if isinstance(self.values, pa.Array):
            return self.values.filter(pa.array(self.valid))
        return self.values if self.valid.all() else self.values[self.valid]

    @property
    def nulls(self) -> int:
        """Number of missing values."""
        return int(self.valid.size - np.count_nonzero(self.valid))


@dataclass(frozen=True)
class Rows:
    """Columns of some rows, by role.

    Attributes:
        count: Number of rows.
        columns: Role -> column; a role without a column in the data is absent.
    """

    count: int
    columns: Mapping[str, Column]

    def __contains__(self, role: object) -> bool:
        """Whether the data have this role."""
        return role in self.columns

    def __getitem__(self, role: str) -> Column:
        """Column of a role."""
        return self.columns[role]

    def with_columns(self, **columns: Column) -> Rows:
        """Rows with derived columns added."""
        return Rows(self.count, {**self.columns, **columns})

    def both(self, first: str, second: str) -> NDArray[np.bool_]:
        """Mask of rows where two roles both have a value."""
        return self[first].valid & self[second].valid

    def take(self, index: NDArray[np.intp]) -> Rows:
        """Rows in a given order (a copy)."""
        columns = {}
        for role, column in self.columns.items():
            values = (
                column.values.take(pa.array(index))
                if isinstance(column.values, pa.Array)
                else column.values[index]
            )
            columns[role] = Column(values, column.valid[index])
        return Rows(int(index.size), columns)

    def slice(self, start: int, stop: int) -> Rows:
        """Run of rows without copying."""
        return Rows(
            stop - start,
            {
                role: Column(
                    c.values.slice(start, stop - start)
                    if isinstance(c.values, pa.Array)
                    else c.values[start:stop],
                    c.valid[start:stop],
                )
                for role, c in self.columns.items()
            },
        )


def from_arrow(
    batch: pa.RecordBatch, kinds: Mapping[str, str], dimension: int | None = None
) -> Rows:
    """Read the columns of a batch that are named like roles.

    Args:
        batch: Columns named by role; keys and times are integers (see `partial_states.as_roles`).
        kinds: Role -> kind.
        dimension: Length of vectors, if known.
    """
    from gio_spark.engine import decode_vectors

    columns = {}
    for role, kind in kinds.items():
        array = batch.column(role)
        valid = pc.is_valid(array).to_numpy(zero_copy_only=False)
        if kind == "arrow":
            columns[role] = Column(array, valid)
        elif kind == "vector":
            decoded = decode_vectors(
                array.drop_null(), dimension, what="role 'vector' of the metrics"
            )
            matrix = decoded
            if not valid.all():
                matrix = np.zeros((len(array), decoded.shape[1]), np.float32)
                matrix[valid] = decoded
            columns[role] = Column(matrix, valid)
        elif kind == "real":
            values = pc.fill_null(array.cast(pa.float64()), 0.0).to_numpy(zero_copy_only=False)
            # NaN and infinity count as missing.
            finite = np.isfinite(values)
            columns[role] = Column(np.where(finite, values, 0.0), valid & finite)
        else:
            values = pc.fill_null(array.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
            columns[role] = Column(values, valid)
    return Rows(batch.num_rows, columns)
