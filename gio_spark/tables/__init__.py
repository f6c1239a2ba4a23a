"""All storage: inputs read and pinned, stage tables written and found again."""

from gio_spark.tables.chunks import WHOLE, Chunk, chunks_for, values_in, write_chunks
from gio_spark.tables.inputs import Input, Pin, frame_digest, open_input, pin_input
from gio_spark.tables.names import quoted, quoted_column
from gio_spark.tables.prune import prune
from gio_spark.tables.records import Record
from gio_spark.tables.workspace import STAGE_TABLES, Workspace

__all__ = [
    "STAGE_TABLES",
    "WHOLE",
    "Chunk",
    "Input",
    "Pin",
    "Record",
    "Workspace",
    "chunks_for",
    "frame_digest",
    "open_input",
    "pin_input",
    "prune",
    "quoted",
    "quoted_column",
    "values_in",
    "write_chunks",
]
