"""Details in quarantine that name a purged row are emptied, others stay."""

from __future__ import annotations

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from gio_spark.tables import Workspace
from gio_spark.tables.purge_deletion import clear_details
from gio_spark.tables.purge_list import PurgeList, id_hash

pytestmark = pytest.mark.embedded


def test_a_line_that_names_a_purged_id_is_emptied(spark, tmp_path):
    workspace = Workspace(spark, str(tmp_path / "ws"))
    details = {
        "a": ('{"id": "doc-7", "text": "cut of', "malformed JSON"),
        "b": ('{"id": "doc-77", "text": "cut of', "malformed JSON"),
        "c": ("doc-7", "exact_duplicate"),
        "d": ("doc-77", "exact_duplicate"),
        "e": (None, "duplicate id"),
    }
    rows = pa.table(
        {
            "id": list(details),
            "detail": [detail for detail, _ in details.values()],
            "reason": [reason for _, reason in details.values()],
        }
    )
    workspace.write_arrow("quarantine", rows, fingerprint="f", run="r", stage="quarantine")
    ids = workspace.frame(pa.table({"id": ["doc-7"]}))
    hashes = ids.select(id_hash("id").alias("id_hash")).toArrow()
    purged = PurgeList(workspace)
    assert not purged.exists
    assert (purged.add(hashes, "p"), purged.add(hashes, "p")) == (1, 0)
    assert clear_details(workspace, purged.hashes()) == 2
    assert clear_details(workspace, purged.hashes()) == 0
    stored = DeltaTable(str(tmp_path / "ws" / "quarantine")).to_pyarrow_table()
    by_id = dict(zip(stored["id"].to_pylist(), stored["detail"].to_pylist(), strict=True))
    assert by_id == {**{k: d for k, (d, _) in details.items()}, "a": None, "c": None}
