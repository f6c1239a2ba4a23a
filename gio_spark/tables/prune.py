"""Take away rows that can be computed again and that no recent run uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gio_spark.engine import bounded
from gio_spark.tables import delta
from gio_spark.tables.partitions import key_of
from gio_spark.tables.records import newest_per_stage

if TYPE_CHECKING:
    from gio_spark.tables.workspace import Workspace


def prune(workspace: Workspace, table: str, keep: Sequence[str]) -> int:
    """Delete rows of fingerprints that the newest records no longer name.

    Args:
        workspace: Where.
        table: Stage table.
        keep: Fingerprints that stay whatever the records say.

    Returns:
        Number of fingerprints deleted.
    """
    if not workspace.exists(table):
        return 0
    key, records = key_of(table), workspace.records()
    # Nothing is old where the records name no more fingerprints than are kept.
    wanted = set(keep)
    wanted |= {r.fingerprint for r in newest_per_stage(records, table)}
    # A refresh writes rows of several tables under one fingerprint.
    wanted |= {r.fingerprint for r in records if r.stage == "refresh"}
    named = {r.detail.get("chunk_of", r.fingerprint) for r in records if r.table == table}
    if named <= wanted:
        return 0
    found = bounded(workspace.read_all(table).select(key).distinct(), 10_000, "fingerprints")
    old = [f for f in found[key].to_pylist() if f not in wanted]
    for fingerprint in old:
        name = delta.sql_name(workspace.spark, workspace.place(table))
        # A quoted name and a hash of our own: nothing from outside reaches this text.
        workspace.spark.sql(f"DELETE FROM {name} WHERE {key} = '{fingerprint}'")  # noqa: S608
    return len(old)
