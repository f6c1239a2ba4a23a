"""All storage: inputs read and pinned, stage tables written and found again."""

from gio_spark.tables.inputs import Input, Pin, frame_digest, open_input, pin_input
from gio_spark.tables.names import quoted, quoted_column
from gio_spark.tables.workspace import STAGE_TABLES, Record, Workspace

__all__ = [
    "STAGE_TABLES",
    "Input",
    "Pin",
    "Record",
    "Workspace",
    "frame_digest",
    "open_input",
    "pin_input",
    "quoted",
    "quoted_column",
]
