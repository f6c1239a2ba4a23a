"""Storage: pinned inputs, stage tables, and published selections."""

from gio_spark.tables.chunked_writes import write_chunks
from gio_spark.tables.duplicate_ids import frame_digest
from gio_spark.tables.hash_chunks import WHOLE, Chunk, chunks_for
from gio_spark.tables.identifiers import quoted, quoted_column
from gio_spark.tables.inputs import Input, open_input
from gio_spark.tables.pinned_inputs import PinnedInput, pin_input
from gio_spark.tables.publish_log import PublishEvent, PublishLog
from gio_spark.tables.retention import Pruned, forget, prune, try_to_prune
from gio_spark.tables.stage_claims import StageClaims
from gio_spark.tables.stage_records import Record
from gio_spark.tables.table_maintenance import Maintenance, maintain
from gio_spark.tables.workspace import SELECTION, STAGE_TABLES, Workspace, count_values

__all__ = [
    "SELECTION",
    "STAGE_TABLES",
    "WHOLE",
    "Chunk",
    "Input",
    "Maintenance",
    "PinnedInput",
    "Pruned",
    "PublishEvent",
    "PublishLog",
    "Record",
    "StageClaims",
    "Workspace",
    "chunks_for",
    "count_values",
    "forget",
    "frame_digest",
    "maintain",
    "open_input",
    "pin_input",
    "prune",
    "quoted",
    "quoted_column",
    "try_to_prune",
    "write_chunks",
]
