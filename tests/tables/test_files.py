"""What Spark's tasks get of Parquet files, from their footers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gio_spark.tables.files import fullest_share, list_files

ROWS = 40_000


def written(folder, group_rows, width=64):
    rng = np.random.default_rng(0)
    content = rng.bytes(ROWS * width)
    values = pa.array([content[i : i + width] for i in range(0, ROWS * width, width)])
    pq.write_table(pa.table({"x": values}), folder / "rows.parquet", row_group_size=group_rows)
    return list_files(str(folder))


def test_a_row_group_is_never_cut(tmp_path, monkeypatch):
    monkeypatch.setattr("gio_spark.tables.files._FILE_COST", 1)
    files = written(tmp_path, ROWS)
    assert fullest_share(files, 2) == fullest_share(files, 16) == 1.0


def test_even_groups_give_even_shares(tmp_path, monkeypatch):
    monkeypatch.setattr("gio_spark.tables.files._FILE_COST", 1)
    files = written(tmp_path, ROWS // 8)
    assert fullest_share(files, 2) == pytest.approx(0.5, abs=0.13)
    assert fullest_share(files, 4) == pytest.approx(0.25, abs=0.13)


def test_the_price_of_opening_a_file_makes_the_first_piece_larger(tmp_path):
    # 2.5 MB: with four megabytes for opening it, half of the sum is more than the whole file.
    assert fullest_share(written(tmp_path, ROWS // 8), 2) == 1.0


def test_a_broken_file_and_many_files_tell_nothing(tmp_path, monkeypatch):
    files = written(tmp_path, ROWS)
    monkeypatch.setattr("gio_spark.tables.files._FOOTERS", 0)
    assert fullest_share(files, 2) is None
    monkeypatch.undo()
    (tmp_path / "rows.parquet").write_bytes(b"no Parquet")
    assert fullest_share(files, 2) is None
