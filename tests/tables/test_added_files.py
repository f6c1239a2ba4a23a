"""Rows of files that were added to an input, read without the other files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from gio_spark.engine import describe
from gio_spark.settings.columns import Columns
from gio_spark.settings.inputs import InputSettings
from gio_spark.tables import Input, open_input
from gio_spark.tables.added_files import MOST_MARKED

COLUMNS = Columns(id="id", text="text", tokens="words")


def rows(name: str, count: int = 3, **more: Any) -> pa.Table:
    return pa.table(
        {
            "id": [f"{name}{i}" for i in range(count)],
            "text": [f"text {i}\nof {name}, ü" for i in range(count)],
            "words": pa.array(range(count), pa.int32()),
            **more,
        }
    )


def write_parquet(table: pa.Table, file: Path) -> None:
    pq.write_table(table, file.with_suffix(".parquet"))


def write_unsigned(table: pa.Table, file: Path) -> None:
    """Parquet with a column that engines would misread, so that Arrow reads it."""
    numbers = pa.array([2**63 + i for i in range(table.num_rows)], pa.uint64())
    write_parquet(table.append_column("number", numbers), file)


def write_partition(table: pa.Table, file: Path) -> None:
    folder = file.parent / f"year=202{len(file.name) % 3}"
    folder.mkdir(exist_ok=True)
    write_parquet(table, folder / file.name)


def write_json(table: pa.Table, file: Path) -> None:
    lines = [json.dumps(row) for row in table.to_pylist()]
    file.with_suffix(".jsonl").write_text("\n".join([*lines, "{no json"]))


def write_gzip(table: pa.Table, file: Path) -> None:
    lines = "\n".join(json.dumps(row) for row in table.to_pylist())
    file.with_suffix(".jsonl.gz").write_bytes(gzip.compress(lines.encode()))


def write_csv(table: pa.Table, file: Path) -> None:
    pacsv.write_csv(table, file.with_suffix(".csv"))


WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {
    "parquet": write_parquet,
    "unsigned": write_unsigned,
    "partitions": write_partition,
    "json": write_json,
    "gzip": write_gzip,
    "csv": write_csv,
}


def opened(spark: Any, location: Path | str, columns: Columns = COLUMNS) -> Input:
    return open_input(spark, InputSettings(location=str(location)), columns, "pool")


def marks(one: Input) -> str | None:
    assert one.file_rows is not None
    return one.file_rows.marks()


def check_added_rows(spark: Any, folder: Path, kind: str) -> None:
    """Rows of added files are those that stand among all rows."""
    write = WRITERS[kind]
    folder.mkdir()
    write(rows("a"), folder / "a")
    write(rows("b"), folder / "b")
    before = opened(spark, folder)
    if kind == "partitions" and describe(spark).kind == "embedded":
        assert before.file_rows is None
        return
    earlier = marks(before)
    assert before.rows_in_files_since(earlier) is None  # nothing was added
    write(rows("n", 4), folder / "ü n#1 [x]{y}*")
    write(rows("m", 2), folder / "m m")
    now = opened(spark, folder)
    added = now.rows_in_files_since(earlier)
    assert added is not None
    new_ids = [f"n{i}" for i in range(4)] + [f"m{i}" for i in range(2)]
    every = now.rows.toArrow().sort_by("id")
    kept = [key in new_ids for key in every["id"].to_pylist()]
    assert sum(kept) == 6 and every.num_rows == 12
    table = added.toArrow().sort_by("id")
    assert table.schema.names == every.schema.names
    assert table.to_pylist() == every.filter(pa.array(kept)).to_pylist()


@pytest.mark.embedded
@pytest.mark.parametrize("kind", list(WRITERS))
def test_rows_of_added_files_are_those_among_all_rows(spark, folder, kind):
    check_added_rows(spark, folder / "pool", kind)


@pytest.mark.spark
@pytest.mark.timeout(300)
def test_rows_of_added_files_are_those_among_all_rows_on_spark(local_spark, folder):
    for kind in WRITERS:
        check_added_rows(local_spark, folder / kind, kind)


@pytest.mark.embedded
def test_nothing_is_said_where_other_rows_may_differ_as_well(spark, folder):
    write_parquet(rows("a"), folder / "a")
    write_parquet(rows("b"), folder / "b")
    earlier = marks(opened(spark, folder))
    write_parquet(rows("n"), folder / "n")
    assert opened(spark, folder).rows_in_files_since(earlier) is not None
    assert opened(spark, folder).rows_in_files_since(None) is None

    write_parquet(rows("a"), folder / "a")  # written again
    assert opened(spark, folder).rows_in_files_since(earlier) is None
    earlier = marks(opened(spark, folder))
    (folder / "b.parquet").rename(folder / "c.parquet")
    assert opened(spark, folder).rows_in_files_since(earlier) is None
    earlier = marks(opened(spark, folder))
    write_parquet(rows("a"), folder / "doubles")  # which row of an id stays?
    assert opened(spark, folder).file_rows is None
    (folder / "doubles.parquet").unlink()
    # Another type of all rows, although no other file has changed.
    wide = pa.array([2**40] * 3, pa.int64())
    write_parquet(rows("w").set_column(2, "words", wide), folder / "w")
    assert opened(spark, folder).rows_in_files_since(earlier) is None


@pytest.mark.embedded
def test_a_file_that_shows_another_dialect_is_one_that_changes_all_rows(spark, folder):
    (folder / "a.csv").write_text('id,text\na,"one \\ two"\n')
    earlier = marks(opened(spark, folder, Columns(id="id", text="text")))
    (folder / "b.csv").write_text('id,text\nb,"say \\"yes\\" to it"\n')
    now = opened(spark, folder, Columns(id="id", text="text"))
    assert now.rows_in_files_since(earlier) is None


@pytest.mark.embedded
def test_rows_without_an_id_are_not_among_those_of_added_files(spark, folder):
    write_parquet(rows("a"), folder / "a")
    earlier = marks(opened(spark, folder))
    nameless = rows("n").set_column(0, "id", pa.array(["n0", None, "n2"]))
    write_parquet(nameless, folder / "n")
    added = opened(spark, folder).rows_in_files_since(earlier)
    assert added is not None and sorted(added.toArrow()["id"].to_pylist()) == ["n0", "n2"]


@pytest.mark.embedded
def test_marks_of_too_many_files_are_not_stored(spark, folder):
    for number in range(MOST_MARKED + 1):
        write_json(rows(f"{number}-", 1), folder / str(number))
    assert marks(opened(spark, folder)) is None
