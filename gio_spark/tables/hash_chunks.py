"""Chunks of a table's rows: hash ranges of the id."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from gio_spark.engine import hash53
from gio_spark.engine.sampling import HASH_RANGE
from gio_spark.errors import WorkspaceError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# Every chunk reads the stage's input once more (a filter on a hash of the id skips no file of it),
# so more chunks than this would cost more in reading than a death costs in repeating.
MOST_CHUNKS = 16
_SALT = "gio.chunk"


@dataclass(frozen=True)
class Chunk:
    """One of several parts of all rows, by a hash range of the id.

    Attributes:
        number: From 1 to `of`.
        of: How many there are.
    """

    number: int
    of: int

    @property
    def label(self) -> str:
        """Name of the chunk in records; it names the cut as well, so that two never mix."""
        return f"{self.number:03}-of-{self.of:03}"

    def rows(self, df: DataFrame) -> DataFrame:
        """The rows of a frame with `id` that belong to this chunk."""
        if self.of == 1:
            return df
        low, high = (HASH_RANGE * n // self.of for n in (self.number - 1, self.number))
        hashed = hash53("id", _SALT)
        return df.where((hashed >= F.lit(low)) & (hashed < F.lit(high)))


WHOLE = Chunk(1, 1)


def chunks_for(rows: int, chunk_rows: int) -> int:
    """Number of chunks in which a stage over so many rows is written."""
    return max(1, min(MOST_CHUNKS, math.ceil(rows / chunk_rows)))


def check_rows(place: str, stage: str, rows: int, expected: int | None) -> None:
    """Raise where a stage has written another number of rows than expected.

    Raises:
        WorkspaceError: It is another one.
    """
    if expected is not None and rows != expected:
        raise WorkspaceError(
            f"{place} holds {rows:,} rows of {stage} after the write, but {expected:,} were "
            "expected. The input may have changed while it was read; run again."
        )
