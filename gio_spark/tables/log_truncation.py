"""Removal of old commits from the log of a Delta table, with the statistics that they hold."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pyarrow.fs as pafs

from gio_spark.engine import capabilities
from gio_spark.tables import delta
from gio_spark.tables.file_list import filesystem

if TYPE_CHECKING:
    from gio_spark.tables.workspace import Workspace

# Commits, their checksums (Hadoop's begin with a dot) and checkpoints.
_OF_VERSION = re.compile(r"\.?(\d{20})\.(json|crc|checkpoint\.).*")


def truncate_log(workspace: Workspace, table: str) -> None:
    """Write a checkpoint of a table in a folder, and delete all commits before it.

    The log of an earlier commit holds the least and greatest numbers and times of files that are
    gone. Delta deletes such commits itself once they are a month old.
    """
    place = workspace.place(table)
    if capabilities(workspace.spark).history:
        name = delta.sql_name(workspace.spark, place)
        properties = "('delta.checkpointInterval' = '1')"
        workspace.spark.sql(f"ALTER TABLE {name} SET TBLPROPERTIES {properties}").collect()
    else:
        delta.open_log(place).create_checkpoint()
    store, path = filesystem(place)
    with store.open_input_stream(f"{path}/_delta_log/_last_checkpoint") as file:
        version = int(json.loads(file.read())["version"])
    for info in store.get_file_info(pafs.FileSelector(f"{path}/_delta_log")):
        match = _OF_VERSION.fullmatch(info.base_name)
        if match and int(match[1]) < version:
            store.delete_file(info.path)
