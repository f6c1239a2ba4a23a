"""One commit for the rows of several inputs: a commit costs seconds, however few the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gio_spark.pipeline.context import Context
from gio_spark.tables import WHOLE, Chunk

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.engine.progress import Stage as StageProgress


@dataclass(frozen=True)
class Part:
    """What one stage writes.

    Attributes:
        stage: Its name.
        key: Fingerprint of its rows.
        make: Gives the rows of a chunk.
        chunks: In how many they are written.
        expected: Rows that must be there afterwards, where known.
    """

    stage: str
    key: str
    make: Callable[[Chunk], DataFrame]
    chunks: int = 1
    expected: int | None = None


@dataclass
class SharedCommit:
    """Stages of one table, one per input, which the first of them to be written takes along.

    Each has its own fingerprint and record all the same: one that is killed before its record is
    written again alone.

    Attributes:
        ctx: The run.
        table: Stage table.
        parts: The stages.
    """

    ctx: Context
    table: str
    parts: Mapping[str, Part]
    _rows: dict[str, int] = field(default_factory=dict)

    def write(self, name: str, shown: StageProgress) -> int:
        """Write the rows of an input, unless they were written with those of another; count them.

        Args:
            name: Name of the input.
            shown: Where its progress is shown.
        """
        part = self.parts[name]
        if part.key in self._rows:
            shown.say("written with the stage before")
        else:
            along = {p.key: p for p in self.parts.values() if self._goes_along(p)}
            if part.key in along and len(along) > 1:
                self._rows |= self.ctx.workspace.write_together(
                    self.table,
                    {key: p.make(WHOLE) for key, p in along.items()},
                    run=self.ctx.run,
                    stage=", ".join(p.stage for p in along.values()),
                    expected={key: p.expected for key, p in along.items()},
                )
            else:
                self._rows[part.key] = self.ctx.write_chunks(
                    shown,
                    self.table,
                    part.make,
                    count=part.chunks,
                    key=part.key,
                    stage=part.stage,
                    expected=part.expected,
                )
        return self._rows[part.key]

    def _goes_along(self, part: Part) -> bool:
        return part.chunks == 1 and not self.ctx.recorded(part.stage, part.key)
