import gzip
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from gio_spark.errors import IdentifierError, InputError, SnapshotExpiredError
from gio_spark.settings.columns import Columns
from gio_spark.settings.inputs import InputSettings
from gio_spark.tables import open_input, pin_input

pytestmark = pytest.mark.embedded
TEXT = Columns(id="id", text="text")


def opened(spark, location, columns=TEXT, **settings):
    return open_input(spark, InputSettings(location=str(location), **settings), columns, "pool")


def ids(opened_input):
    return sorted(opened_input.rows.toArrow()["id"].to_pylist())


def test_integer_ids_become_strings_and_other_types_are_refused(spark, folder):
    pq.write_table(pa.table({"id": [3, 1], "text": ["a", "b"]}), folder / "a.parquet")
    opened_input = opened(spark, folder)
    assert ids(opened_input) == ["1", "3"]
    assert (opened_input.count, opened_input.format) == (2, "parquet")
    pq.write_table(pa.table({"id": [3.0, 1.0], "text": ["a", "b"]}), folder / "a.parquet")
    with pytest.raises(InputError, match=r"'id' .* is double, but columns.id must be a string or"):
        opened(spark, folder)


def test_without_an_id_equal_content_is_one_row(spark, folder):
    table = pa.table({"text": ["a", "b", "a"], "n": [1, 2, 1]})
    pq.write_table(table, folder / "a.parquet")
    opened_input = opened(spark, folder, Columns(text="text"))
    assert len(set(ids(opened_input))) == 2
    assert all(len(i) == 32 for i in ids(opened_input))
    assert opened_input.bad.toArrow()["reason"].to_pylist() == ["copy of another row"]


def test_of_doubled_ids_one_row_stays_whatever_the_partitioning(spark, folder):
    n = 50
    table = pa.table({"id": [i % 40 for i in range(n)], "text": [f"t{i}" for i in range(n)]})
    remaining = []
    for parts in (1, 3):
        path = folder / f"parts{parts}"
        path.mkdir()
        for i in range(parts):
            pq.write_table(table.take(list(range(i, n, parts))), path / f"{i}.parquet")
        opened_input = opened(spark, path)
        out = opened_input.rows.toArrow().sort_by("id")
        remaining.append(out["text"].to_pylist())
        assert out.num_rows == 40
        assert opened_input.bad.toArrow()["reason"].to_pylist() == ["duplicate id"] * 10
    assert remaining[0] == remaining[1]


def test_an_own_column_named_like_the_key_keeps_its_values(spark, folder):
    pq.write_table(
        pa.table({"ID": [7, 8], "key": ["x", "y"], "text": ["a", "b"]}), folder / "a.parquet"
    )
    opened_input = opened(spark, folder, Columns(id="key", text="text"))
    out = (
        opened_input.rows.select(*opened_input.original_columns(opened_input.rows))
        .toArrow()
        .sort_by("key")
    )
    assert out.to_pydict() == {"ID": [7, 8], "key": ["x", "y"], "text": ["a", "b"]}
    assert ids(opened_input) == ["x", "y"]


def test_jsonl_is_cast_by_role_and_else_by_its_values(spark, folder):
    lines = [
        {"id": 1, "text": "eins", "q": "0.5", "when": "2024-05-01T12:00:00Z", "v": [1, 2.5]},
        {"id": "zwei", "text": "naïve ☃", "extra": {"a": [1]}, "q": 1},
    ]
    text = "\n".join(json.dumps(x, ensure_ascii=False) for x in lines)
    (folder / "a.jsonl").write_text(text + '\n{"id": 3, "text": \n\n[1]\n', encoding="utf-8")
    columns = Columns(id="id", text="text", quality="q", event_time="when", vector="v")
    opened_input = opened(spark, folder, columns)
    rows = {r["id"]: r for r in opened_input.rows.toArrow().to_pylist()}
    assert rows["1"]["q"] == 0.5
    assert rows["1"]["when"].year == 2024
    assert rows["1"]["v"] == [1.0, 2.5]
    assert rows["zwei"]["text"] == "naïve ☃"
    assert rows["zwei"]["extra"] == {"a": [1]}
    bad = opened_input.bad.toArrow().to_pylist()
    assert len(bad) == 2
    assert all(b["reason"].startswith("malformed line") for b in bad)


def test_a_value_that_does_not_fit_its_role_is_quarantined(spark, folder):
    (folder / "a.jsonl").write_text('{"id":"a","text":"x","q":"good"}\n{"id":"b","text":"y"}\n')
    opened_input = opened(spark, folder, Columns(id="id", text="text", quality="q"))
    assert ids(opened_input) == ["b"]
    assert opened_input.bad.toArrow()["reason"].to_pylist() == ["malformed value in column 'q'"]


def test_every_line_of_a_large_file_is_read_once(spark, folder, monkeypatch):
    monkeypatch.setattr("gio_spark.tables.text_files._CHUNK", 1000)
    lines = [json.dumps({"id": i, "text": "x" * (i % 97)}) for i in range(2000)]
    (folder / "a.jsonl").write_text("\n".join(lines))
    assert ids(opened(spark, folder)) == sorted(str(i) for i in range(2000))


def test_csv_with_quoted_newlines_bad_rows_and_gzip(spark, folder):
    content = 'id,text\n1,"two\nlines, one cell"\n2,b,c\n3,"say ""hi"""\n'
    with gzip.open(folder / "a.csv.gz", "wt") as out:
        out.write(content)
    opened_input = opened(spark, folder)
    texts = {r["id"]: r["text"] for r in opened_input.rows.toArrow().to_pylist()}
    assert texts == {"1": "two\nlines, one cell", "3": 'say "hi"'}
    assert opened_input.bad.toArrow()["reason"].to_pylist() == [
        "malformed line: 3 values for 2 columns"
    ]


def test_bytes_that_are_not_utf8_spoil_their_line_only(spark, folder):
    lines = ["id,text", "1,good", "2,café", "3,tea,with,more", "4,crème,extra", "5,fine"]
    (folder / "a.csv").write_bytes("\n".join(lines).encode("latin-1"))
    opened_input = opened(spark, folder)
    assert ids(opened_input) == ["1", "5"]
    reasons = sorted(opened_input.bad.toArrow()["reason"].to_pylist())
    assert reasons == [
        "malformed line: 3 values for 2 columns",
        "malformed line: 4 values for 2 columns",
        "malformed line: not UTF-8",
    ]


def test_pixels_in_jsonl_are_an_array_of_numbers(spark, folder):
    (folder / "a.jsonl").write_text('{"id": 1, "img": [0, 128, 255]}\n{"id": 2, "img": "x"}\n')
    opened_input = opened(spark, folder, Columns(id="id", image="img"))
    assert opened_input.rows.toArrow()["img"].to_pylist() == [[0.0, 128.0, 255.0]]
    assert opened_input.bad.toArrow()["reason"].to_pylist() == ["malformed value in column 'img'"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "pool: .*a.csv is empty: no line in it"),
        ("a.jsonl", b"", "pool: .*a.jsonl is empty: no line in it"),
        ("a.csv", b"id,text\n", r"pool: .*a.csv holds no rows\."),
        (
            "a.csv",
            b"id,text\n1,\xe9\n2,\xe9\n",
            r"no rows that can be read \(2 malformed line: not",
        ),
        ("a.json", b"[1, 2]", "pool: No columns found in .*A line of JSONL is one object"),
        (
            "a.jsonl.gz",
            b"no gzip",
            "pool: Cannot read .*a.jsonl.gz: .* Is the file whole, and of the",
        ),
        ("a.csv.gz", b"no gzip", "pool: Cannot read .*a.csv.gz: .* Is the file whole, and of the"),
        ("a.txt", b"x", "pool: Cannot tell the format of"),
    ],
)
def test_text_files_that_hold_nothing_usable_are_one_clear_error(
    spark, folder, name, content, message
):
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        opened(spark, folder / name)


def test_delta_is_pinned_at_its_version(spark, folder):
    path = str(folder / "t")
    df = spark.createDataFrame(pa.table({"id": ["a"], "text": ["x"]}))
    df.write.format("delta").save(path)
    first = opened(spark, path)
    df.withColumn("id", F.concat("id", "id")).write.format("delta").mode("append").save(path)
    assert first.version == "0"
    assert ids(opened(spark, path)) == ["a", "aa"]
    assert ids(opened(spark, path, version=0)) == ["a"]
    assert first.table_id == opened(spark, path).table_id
    with pytest.raises(InputError, match="no version 9: the newest is 1"):
        opened(spark, path, version=9)


def test_files_that_change_during_a_run_are_noticed(spark, folder):
    file = folder / "a.parquet"
    pq.write_table(pa.table({"id": ["a"], "text": ["x"]}), file)
    opened_input = opened(spark, folder)
    opened_input.recheck()
    pq.write_table(pa.table({"id": ["b"], "text": ["y"]}), file)
    os.utime(file, ns=(1, 1))
    with pytest.raises(SnapshotExpiredError, match="changed during the run"):
        opened_input.recheck()


@pytest.mark.parametrize(
    ("location", "error", "message"),
    [
        ("/no/such/place", InputError, "Nothing found at /no/such/place"),
        ("db.tab`le", IdentifierError, "neither an existing path nor a table's name"),
        ("t; DROP TABLE x", IdentifierError, "neither an existing path nor"),
        ("a.b.c.d", IdentifierError, "one to three"),
        ("s3a://bucket/pool", InputError, "Run with engine: spark, whose Hadoop file systems"),
    ],
)
def test_bad_locations_are_one_clear_error(spark, location, error, message):
    with pytest.raises(error, match=message):
        opened(spark, location)


def test_missing_columns_are_named_with_the_nearest(spark, folder):
    pq.write_table(pa.table({"id": ["a"], "body": ["x"]}), folder / "a.parquet")
    with pytest.raises(InputError, match=r"columns.text = 'bodi' \(did you mean 'body'\?\)"):
        opened(spark, folder, Columns(id="id", text="bodi"))
    with pytest.raises(InputError, match="no content column"):
        opened(spark, folder, Columns(id="id"))


def test_wrong_types_empty_tables_and_broken_files_are_clear(spark, folder):
    pq.write_table(pa.table({"id": ["a"], "text": [1]}), folder / "a.parquet")
    with pytest.raises(InputError, match=r"'text' .* is bigint, but columns.text must be a string"):
        opened(spark, folder)
    pq.write_table(
        pa.table({"id": pa.array([], pa.string()), "text": pa.array([], pa.string())}),
        folder / "a.parquet",
    )
    with pytest.raises(InputError, match="holds no rows"):
        opened(spark, folder)
    (folder / "a.parquet").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"pool: Cannot read .*a\.parquet"):
        opened(spark, folder)
    pq.write_table(pa.table({"id": ["a"], "text": ["x"]}), folder / "0.parquet")
    with pytest.raises(InputError, match=r"pool: Cannot read .*arquet"):
        opened(spark, folder)
    (folder / "0.parquet").unlink()
    (folder / "b.jsonl").write_text("{}")
    with pytest.raises(InputError, match="Cannot tell the format"):
        opened(spark, folder)


def test_vectors_are_accepted_as_lists_or_bytes(spark, folder):
    vectors = np.ones((2, 3), np.float32)
    table = pa.table({"id": ["a", "b"], "v": pa.array(vectors.tolist(), pa.list_(pa.float32()))})
    pq.write_table(table, folder / "a.parquet")
    assert opened(spark, folder, Columns(id="id", vector="v")).count == 2


def test_rows_without_an_id_are_quarantined_and_a_column_of_nulls_is_no_id(spark, folder):
    pq.write_table(pa.table({"id": ["a", None], "text": ["x", "y"]}), folder / "a.parquet")
    opened_input = opened(spark, folder)
    assert ids(opened_input) == ["a"]
    assert opened_input.bad.toArrow()["reason"].to_pylist() == ["null id"]
    nulls = pa.array([None, None], pa.string())
    pq.write_table(pa.table({"id": nulls, "text": ["x", "y"]}), folder / "a.parquet")
    with pytest.raises(InputError, match=r"'id' of .* is null in all 2 rows"):
        opened(spark, folder)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_stray_files_are_left_out_where_the_format_is_set(spark, folder, kind):
    (folder / "README.md").write_text("about these files")
    if kind == "jsonl":
        (folder / "a.jsonl").write_text('{"id": "a", "text": "x"}')
    else:
        pq.write_table(pa.table({"id": ["a"], "text": ["x"]}), folder / "a.parquet")
    with pytest.raises(InputError, match=r"Cannot tell the format of .*README.md"):
        opened(spark, folder)
    settings = InputSettings(location=str(folder), format=kind)
    pinned = pin_input(spark, settings, "pool")
    assert [Path(p).name for p in pinned.files.left_out] == ["README.md"]
    opened_input = open_input(spark, settings, TEXT, "pool", pinned)
    assert (opened_input.count, ids(opened_input)) == (1, ["a"])
    opened_input.recheck()


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".zst", ".zstd"])
def test_compressed_lines_are_read_by_the_ending_of_their_name(spark, folder, ending):
    lines = b'{"id": "a", "text": "x"}\n{"id": "b", "text": "y"}\n'
    kind = {".gz": "gzip", ".bz2": "bz2"}.get(ending, "zstd")
    with pa.CompressedOutputStream(str(folder / f"a.jsonl{ending}"), kind) as stream:
        stream.write(lines)
    assert ids(opened(spark, folder)) == ["a", "b"]


def test_an_integer_key_named_id_stays_an_integer_in_the_inputs_own_columns(spark, folder):
    pq.write_table(pa.table({"id": [3, 1], "text": ["a", "b"]}), folder / "a.parquet")
    opened_input = opened(spark, folder)
    columns = (
        opened_input.rows.select(*opened_input.original_columns(opened_input.rows))
        .toArrow()
        .sort_by("id")
    )
    assert columns.to_pydict() == {"id": [1, 3], "text": ["b", "a"]}
    assert columns.schema.field("id").type == pa.int64() and ids(opened_input) == ["1", "3"]


def check_doubles_of_internal_names(spark, folder):
    special_columns = {"_rank": [10, 20, 30], "_key": ["k1", "k2", "k3"], "_own_id": [7, 8, 9]}
    pairs = pa.array([[("k", "1")], [("k", "2")], []], pa.map_(pa.string(), pa.string()))
    table = pa.table({"id": [1, 1, 2], "text": ["x", "y", "z"], **special_columns, "pairs": pairs})
    pq.write_table(table, folder / "a.parquet")
    opened_input = opened(spark, folder)
    rows = opened_input.rows.select(*opened_input.original_columns(opened_input.rows)).toArrow()
    assert rows.schema.names == table.schema.names
    expected_rows = {tuple(map(str, row.values())) for row in table.to_pylist()}
    assert {tuple(map(str, row.values())) for row in rows.to_pylist()} < expected_rows
    assert (rows.num_rows, opened_input.quarantined) == (2, 1)


def test_own_columns_of_internal_names_and_maps_keep_their_values_beside_doubles(spark, folder):
    check_doubles_of_internal_names(spark, folder)
