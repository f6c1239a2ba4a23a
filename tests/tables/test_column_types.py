"""Columns keep their values in the selection, or are refused by name: each row of docs/types.md."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from gio_spark.errors import InputError
from gio_spark.pipeline.commands.table_rows import open_table
from gio_spark.pipeline.stages.input_snapshots import as_location
from gio_spark.settings.columns import Columns
from gio_spark.settings.inputs import InputSettings
from gio_spark.tables import Workspace, open_input, parquet_files, pin_input

DOCS = Path(__file__).parents[2] / "docs" / "types.md"
NUMBERS = [1, 2, None, 3]
CASES = {
    "bool": pa.array([True, False, None, True]),
    **{f"int{b}": pa.array([-1, 2, None, 3], f"int{b}") for b in (8, 16, 32, 64)},
    **{f"uint{b}": pa.array([1, 2**b - 1, None, 3], f"uint{b}") for b in (8, 16, 32, 64)},
    "float16": pa.array(np.array([1, 2.5, -3, 4], np.float16)),
    "float32": pa.array([1.5, 2, None, 3], pa.float32()),
    "float64": pa.array([1e300, 2, None, 3], pa.float64()),
    "decimal128(38, 1)": pa.array([Decimal("1.5"), Decimal(10) ** 36, None, Decimal("-2.5")],
                                  pa.decimal128(38, 1)),
    "decimal256(60, 1)": pa.array([Decimal(10) ** 50, None, None, None], pa.decimal256(60, 1)),
    "string": pa.array(["a", "", None, "c"]),
    "large_string": pa.array(["a", "", None, "c"], pa.large_string()),
    "string_view": pa.array(["a", "", None, "c"], pa.string_view()),
    "category": pa.array(["a", "b", None, "a"]).dictionary_encode(),
    "binary": pa.array([b"a", b"", None, b"c"]),
    "fixed_size_binary[2]": pa.array([b"ab", b"cd", None, b"ef"], pa.binary(2)),
    "date32": pa.array(NUMBERS, pa.date32()),
    "date64": pa.array([86_400_000, 0, None, 172_800_000], pa.date64()),
    "timestamp[ms]": pa.array([1, 10**12, None, 2], pa.timestamp("ms")),
    "timestamp[us]": pa.array([1, 10**15, None, 2], pa.timestamp("us")),
    "timestamp[us, UTC]": pa.array([1, 10**15, None, 2], pa.timestamp("us", "UTC")),
    "timestamp[ns], whole microseconds": pa.array([1000, 10**18, None, 2000], pa.timestamp("ns")),
    "timestamp[ns], others": pa.array([1, 10**18, None, 2000], pa.timestamp("ns")),
    "time32": pa.array(NUMBERS, pa.time32("s")),
    "time64": pa.array(NUMBERS, pa.time64("us")),
    "duration": pa.array(NUMBERS, pa.duration("us")),
    "null": pa.nulls(4),
    "list of uint8": pa.array([[1, 255], [], None, [3]], pa.list_(pa.uint8())),
    "list of timestamp[ns]": pa.array([[1000], [], None, [2000]], pa.list_(pa.timestamp("ns"))),
    "fixed_size_list of float32": pa.array([[1, 2], [3, 4], None, [5, 6]],
                                           pa.list_(pa.float32(), 2)),
    "struct": pa.array([{"a": 1, "b": "x"}, None, {"a": 2, "b": None}, {"a": 3, "b": "y"}]),
    "map": pa.array([[("a", 1)], [], None, [("b", 2)]], pa.map_(pa.string(), pa.int64())),
}  # fmt: skip
COLUMNS = Columns(id="id", text="text")


def documented():
    """Type -> what the docs say of it on the embedded engine and on Spark."""
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", DOCS.read_text(), re.MULTILINE)
    return {name: (embedded, spark) for name, embedded, spark in rows if "type in" not in name}


def is_supported(name):
    """Whether this pyarrow writes a type to Parquet and reads it; earlier ones know fewer."""
    place = pa.BufferOutputStream()
    try:
        pq.write_table(table_of([name]), place)
        pq.read_table(pa.BufferReader(place.getvalue()))
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return False
    return True


def table_of(names):
    columns = {name: CASES[name] for name in names}
    return pa.table({"id": list("abcd"), "text": list("wxyz"), **columns})


def check_carried(spark, folder, engine):
    """All types that are carried, in one file: read, written as a selection, read again."""
    documented_columns = {name: both[engine] for name, both in documented().items()}
    carried = [n for n, kind in documented_columns.items() if kind != "refused" and is_supported(n)]
    assert len(carried) >= 28
    # Engines take no blanks and brackets in names, so columns go by number.
    short = {name: f"c{number}" for number, name in enumerate(carried)}
    table = table_of(carried).rename_columns(["id", "text", *short.values()])
    pq.write_table(table, folder / "pool.parquet")
    opened = open_input(
        spark, InputSettings(location=str(folder / "pool.parquet")), COLUMNS, "pool"
    )
    rows = opened.rows.select(*opened.original_columns(opened.rows))
    workspace = Workspace(spark, str(folder / "ws"))
    name, _ = workspace.write_selection(rows, opened.schema, run="run-types", expected=4)
    back = workspace.read_table(name).toArrow().sort_by("id")
    types = {f.name: f.dataType.simpleString() for f in opened.schema.fields}
    for kind, column in short.items():
        assert types[column] == documented_columns[kind], kind
        assert back[column].to_pylist() == CASES[kind].to_pylist(), kind


def check_refused(spark, folder, engine):
    for name in [name for name, both in documented().items() if both[engine] == "refused"]:
        place = folder / "one.parquet"
        pq.write_table(table_of([name]).rename_columns(["id", "text", "odd"]), place)
        with pytest.raises(InputError, match=r"column 'odd'.* columns\.drop: \[odd\]"):
            open_input(spark, InputSettings(location=str(place)), COLUMNS, "pool")
        without = COLUMNS.model_copy(update={"drop": ("odd",)})
        opened = open_input(spark, InputSettings(location=str(place)), without, "pool")
        assert opened.own_columns == ("id", "text") and opened.count == 4


def test_the_docs_name_every_type_that_is_tried():
    assert set(documented()) == set(CASES)


@pytest.mark.embedded
def test_types_are_carried_or_refused_as_the_docs_say(spark, folder):
    check_carried(spark, folder, 0)
    check_refused(spark, folder, 0)


@pytest.mark.spark
def test_types_are_carried_or_refused_as_the_docs_say_on_spark(local_spark, folder):
    check_carried(local_spark, folder, 1)
    check_refused(local_spark, folder, 1)
    check_times_of_96_bits(local_spark, folder)


@pytest.mark.embedded
def test_tables_that_are_measured_are_read_like_inputs(spark, folder):
    when = pa.array([datetime(2024, 1, 1)], pa.timestamp("us"))
    table = pa.table({"text": ["x"], "n": pa.array([2**64 - 1], pa.uint64()), "when": when,
                      "took": pa.array([1], pa.time64("us"))})  # fmt: skip
    place = folder / "a.parquet"
    pq.write_table(table, place, use_deprecated_int96_timestamps=True)
    one = InputSettings(location=str(place))
    rows = open_table(spark, one, pin_input(spark, one, "table"), {}, "table").rows
    assert rows.columns == ["text", "n", "when"]
    assert dict(rows.dtypes)["when"] == "timestamp"
    assert rows.select("n").toArrow()["n"].to_pylist() == [2**64 - 1]


@pytest.mark.embedded
def test_unsigned_keys_of_64_bits_are_keys(spark, folder):
    ids = [2**63 + 5, 2**64 - 1, 7]
    table = pa.table({"id": pa.array(ids, pa.uint64()), "text": ["a", "b", "c"]})
    pq.write_table(table, folder / "a.parquet")
    opened = open_input(spark, InputSettings(location=str(folder)), COLUMNS, "pool")
    assert sorted(opened.rows.toArrow()["id"].to_pylist()) == sorted(map(str, ids))


@pytest.mark.embedded
def test_row_groups_and_files_are_each_read_once(spark, folder):
    for part in range(3):
        rows = range(part * 1000, part * 1000 + 1000)
        table = pa.table({"id": [f"r{i}" for i in rows], "text": ["x"] * 1000,
                          "n": pa.array(rows, pa.uint32())})  # fmt: skip
        pq.write_table(table, folder / f"{part}.parquet", row_group_size=170)
    opened = open_input(spark, InputSettings(location=str(folder)), COLUMNS, "pool")
    assert (opened.count, opened.ids) == (3000, 3000)
    assert sorted(opened.rows.toArrow()["n"].to_pylist()) == list(range(3000))


@pytest.mark.spark
def test_a_large_row_group_is_read_by_several_tasks_of_even_size(local_spark, folder, monkeypatch):
    count = 6_000
    when = datetime(2024, 1, 1)
    table = pa.table({"id": pa.array(range(count)), "text": [f"t{i}" for i in range(count)],
                      "vector": [[float(i), 0.5] for i in range(count)],
                      "price": pa.array([Decimal("1.5")] * count, pa.decimal128(9, 2)),
                      "when": pa.array([when] * count, pa.timestamp("us")),
                      "at": pa.array([when] * count, pa.timestamp("us", "UTC"))})  # fmt: skip
    pq.write_table(table, folder / "a.parquet", row_group_size=count)
    pq.write_table(table.slice(0, 0), folder / "b.parquet")
    where = InputSettings(location=str(folder))
    by_spark = open_input(local_spark, where, COLUMNS, "pool")
    monkeypatch.setattr(parquet_files, "GROUP_BYTES", 1)
    monkeypatch.setattr(parquet_files, "_SLICE_BYTES", 20_000)
    by_slices = open_input(local_spark, where, COLUMNS, "pool")
    assert (by_slices.count, by_slices.ids, by_slices.version) == (count, count, by_spark.version)
    assert by_slices.rows.dtypes == by_spark.rows.dtypes
    first, second = (one.rows.toArrow().sort_by("id") for one in (by_spark, by_slices))
    assert first.equals(second)
    tasks = by_slices.rows.groupBy(F.spark_partition_id()).count().toArrow()["count"].to_pylist()
    assert len(tasks) > 8
    assert sum(tasks) == count
    assert max(tasks) <= 1.1 * np.median(tasks)


@pytest.mark.embedded
def test_two_columns_of_one_name_are_refused(spark, folder):
    arrays = [pa.array(["a"]), pa.array(["x"]), pa.array(["y"])]
    pq.write_table(pa.Table.from_arrays(arrays, ["id", "text", "text"]), folder / "a.parquet")
    with pytest.raises(InputError, match="several columns named 'text', 'text'"):
        open_input(spark, InputSettings(location=str(folder)), COLUMNS, "pool")


@pytest.mark.embedded
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_names_that_differ_in_case_alone_are_refused_unless_one_is_dropped(spark, folder, kind):
    table = pa.table({"id": ["a"], "ID": ["b"], "text": ["x"], "Text": ["y"]})
    if kind == "parquet":
        pq.write_table(table, folder / "a.parquet")
    else:
        (folder / "a.jsonl").write_text('{"id": "a", "ID": "b", "text": "x", "Text": "y"}\n')
    where = InputSettings(location=str(folder))
    with pytest.raises(InputError, match=r"several columns named .*case does not count"):
        open_input(spark, where, COLUMNS, "pool")
    opened = open_input(spark, where, COLUMNS.model_copy(update={"drop": ("ID", "Text")}), "pool")
    assert opened.rows.select("id", "text").toArrow().to_pylist() == [{"id": "a", "text": "x"}]


@pytest.mark.embedded
def test_all_columns_that_cannot_be_carried_are_named_at_once(spark, folder):
    table = pa.table({"id": ["a"], "text": ["x"], "d": pa.array([1], pa.duration("s")),
                      "t": pa.array([1], pa.time32("s"))})  # fmt: skip
    pq.write_table(table, folder / "a.parquet")
    with pytest.raises(InputError, match=r"column 'd' .* column 't' .* columns\.drop: \[d, t\]"):
        open_input(spark, InputSettings(location=str(folder)), COLUMNS, "pool")


@pytest.mark.embedded
def test_what_an_engine_says_of_folders_that_it_cannot_read_is_one_clear_error(spark, folder):
    for name in ("lang=en", "_date=a"):
        (folder / name).mkdir()
        pq.write_table(pa.table({"id": [name], "text": ["x"]}), folder / name / "a.parquet")
    with pytest.raises(InputError, match=r"pool: .* cannot be read: .*partition"):
        open_input(spark, InputSettings(location=str(folder)), COLUMNS, "pool")


@pytest.mark.embedded
def test_frames_of_pandas_keep_categories_and_times_or_are_refused_by_column(spark, folder):
    workspace = Workspace(spark, str(folder / "ws"))
    frame = pd.DataFrame(
        {
            "id": ["a", "b"],
            "text": ["x", "y"],
            "kind": pd.Categorical(["k", "l"]),
            "when": pd.to_datetime(["2024-01-01", "2024-01-02"]),
            "small": np.array([1, 255], np.uint8),
        }
    )
    place = as_location(spark, workspace, frame, "pool")
    opened = open_input(spark, InputSettings(location=place), COLUMNS, "pool")
    back = (
        opened.rows.select(*opened.original_columns(opened.rows))
        .toArrow()
        .sort_by("id")
        .to_pandas()
    )
    assert back["kind"].tolist() == ["k", "l"] and back["small"].tolist() == [1, 255]
    # Sessions run in UTC, in which Spark takes times without a zone.
    assert back["when"].dt.tz_localize(None).tolist() == frame["when"].tolist()
    frame["took"] = pd.to_timedelta([1, 2], "s")
    with pytest.raises(InputError, match=r"column 'took' of the DataFrame is duration"):
        as_location(spark, workspace, frame, "pool")


def write_files(folder, *columns):
    for number, more in enumerate(columns):
        table = pa.table({"id": [f"r{number}"], "text": [f"t{number}"], **more})
        pq.write_table(table, folder / f"{number}.parquet")


def values_of(spark, folder, name):
    opened = open_input(spark, InputSettings(location=str(folder)), COLUMNS, "pool")
    return opened.rows.toArrow().sort_by("id")[name].to_pylist()


def check_files_that_differ(spark, folder):
    for number, (columns, values) in enumerate(
        [
            (({}, {"n": ["e"]}), [None, "e"]),
            (({"n": pa.array([1], pa.uint8())}, {"n": pa.array([70_000])}), [1, 70_000]),
            (({"n": pa.array([1])}, {"n": pa.array([2**63 + 5], pa.uint64())}), [1, 2**63 + 5]),
            (({"n": pa.nulls(1)}, {"n": pa.array([5])}), [None, 5]),
            (({"n": ["a"]}, {"n": pa.array(["b"], pa.large_string())}), ["a", "b"]),
        ]
    ):
        place = folder / str(number)
        place.mkdir()
        write_files(place, *columns)
        assert values_of(spark, place, "n") == values


@pytest.mark.embedded
def test_files_with_other_columns_or_types_keep_every_value(spark, folder):
    check_files_that_differ(spark, folder)


@pytest.mark.spark
def test_files_with_other_columns_or_types_keep_every_value_on_spark(local_spark, folder):
    check_files_that_differ(local_spark, folder)


@pytest.mark.embedded
def test_files_whose_types_have_none_in_common_are_refused_by_column(spark, folder):
    write_files(folder, {"n": pa.array([1])}, {"n": ["x"]})
    with pytest.raises(InputError, match=r"column 'n' of .* is int64 in some files and string"):
        values_of(spark, folder, "n")


@pytest.mark.embedded
def test_two_columns_of_one_name_in_any_file_are_refused(spark, folder):
    write_files(folder, {})
    arrays = [pa.array(["a"]), pa.array(["x"]), pa.array(["y"])]
    pq.write_table(pa.Table.from_arrays(arrays, ["id", "text", "text"]), folder / "1.parquet")
    with pytest.raises(InputError, match=r"1\.parquet has several columns named 'text', 'text'"):
        values_of(spark, folder, "text")


def spark_schema(**types):
    """Metadata of a Parquet file in which Spark stores the types that Parquet has not."""
    fields = [{"name": n, "type": t, "nullable": True, "metadata": {}} for n, t in types.items()]
    content = json.dumps({"type": "struct", "fields": fields})
    return {"org.apache.spark.sql.parquet.row.metadata": content}


VARIANT_BYTES = pa.struct([("metadata", pa.binary()), ("value", pa.binary())])
UDT = {"type": "udt", "pyClass": "pyspark.ml.linalg.VectorUDT", "sqlType": "double"}


@pytest.mark.embedded
@pytest.mark.parametrize(
    ("own_type", "kind", "message"),
    [
        ("variant", VARIANT_BYTES, r"column 'v' of .* is VARIANT.* columns\.drop: \[v\]"),
        (UDT, pa.float64(), r"column 'v' of .* is udt.*vector_to_array.* columns\.drop: \[v\]"),
        ("interval day", pa.int64(), r"column 'v' of .* is interval day.* columns\.drop: \[v\]"),
    ],
)
def test_types_that_only_spark_reads_from_its_parquet_files_are_refused_by_column(
    spark, folder, own_type, kind, message
):
    table = pa.table({"id": ["a"], "text": ["x"], "v": pa.nulls(1, kind)})
    pq.write_table(table.replace_schema_metadata(spark_schema(v=own_type)), folder / "a.parquet")
    where = InputSettings(location=str(folder))
    with pytest.raises(InputError, match=message):
        open_input(spark, where, COLUMNS, "pool")
    without = COLUMNS.model_copy(update={"drop": ("v",)})
    assert open_input(spark, where, without, "pool").own_columns == ("id", "text")


def variants(spark):
    texts = spark.createDataFrame(pa.table({"id": ["a", "b"], "text": ["x", "y"],
                                            "v": ['{"k":1}', '"s"']}))  # fmt: skip
    return texts.withColumn("v", F.parse_json("v"))


def check_variants(spark, place, *, storage):
    variants(spark).repartition(2, "id").write.format(storage).save(str(place))
    opened = open_input(spark, InputSettings(location=str(place)), COLUMNS, "pool")
    assert opened.schema["v"].dataType.simpleString() == "variant"
    rows = opened.rows.select("id", F.to_json("v").alias("v")).toArrow().to_pylist()
    assert {row["id"]: row["v"] for row in rows} == {"a": '{"k":1}', "b": '"s"'}
    without = COLUMNS.model_copy(update={"drop": ("v",)})
    opened = open_input(spark, InputSettings(location=str(place)), without, "pool")
    assert opened.own_columns == ("id", "text") and "v" not in opened.rows.columns


@pytest.mark.embedded
@pytest.mark.parametrize("storage", ["parquet", "delta"])
def test_variants_are_carried_or_left_out(spark, folder, storage):
    check_variants(spark, folder / "pool", storage=storage)


@pytest.mark.spark
def test_variants_and_types_of_sparks_own_on_spark(local_spark, folder):
    from pyspark.ml.linalg import Vectors

    check_variants(local_spark, folder / "pool", storage="parquet")
    workspace = Workspace(local_spark, str(folder / "ws"))
    vectors = local_spark.createDataFrame([("a", Vectors.dense([1.0]))], ["id", "v"])
    with pytest.raises(InputError, match=r"column 'v' of the DataFrame is vector.*vector_to_array"):
        as_location(local_spark, workspace, vectors, "pool")


INSTANTS = [datetime(2024, 1, 1, 0, 0, 0, 123456), None, datetime(3024, 1, 1)]


def check_times_of_96_bits(spark, folder):
    """As Spark writes times: instants, on both engines and whatever stands beside them."""
    kind = pa.timestamp("us")
    nested = pa.array([[when] for when in INSTANTS], pa.list_(kind))
    columns = {"t": pa.array(INSTANTS, kind), "nested": nested}
    for number, more in enumerate([{}, {"n": pa.array([1, 2, 3], pa.uint8())}]):
        place = folder / f"int96-{number}.parquet"
        table = pa.table({"id": list("abc"), "text": list("xyz"), **columns, **more})
        pq.write_table(table, place, use_deprecated_int96_timestamps=True)
        opened = open_input(spark, InputSettings(location=str(place)), COLUMNS, "pool")
        types = {f.name: f.dataType.simpleString() for f in opened.schema.fields}
        assert (types["t"], types["nested"]) == ("timestamp", "array<timestamp>")
        rows = opened.rows.toArrow().sort_by("id")
        instants = [when and when.replace(tzinfo=timezone.utc) for when in INSTANTS]
        assert rows["t"].cast(pa.timestamp("us", "UTC")).to_pylist() == instants
        assert [times[0] for times in rows["nested"].to_pylist()] == instants


@pytest.mark.embedded
def test_times_of_96_bits_are_instants_whatever_stands_beside_them(spark, folder):
    check_times_of_96_bits(spark, folder)


def check_any_names(session, folder):
    """Names that Parquet files do not take from Spark, in tables old and new, nested ones too."""
    store = Workspace(session, str(folder / "ws")).store
    plain = session.createDataFrame([("p", 1)], "part string, n int")
    nested = F.when(F.col("n") > 0, F.struct(F.col("n").alias("c,d")))
    odd = plain.withColumns({"a b": nested, "x(=)": F.when(F.col("n") > 0, F.lit("x\ty"))})
    whole = ("p", 1, (1,), "x\ty")
    for table, first in (("plain", plain), ("odd", odd)):
        for rows in (first, odd, plain):
            store.append(table, rows, partition_by=("part",), note={"part": "p"})
            assert store.committed_rows(table, {"part": "p"}) in (1, store.read(table).count())
        values = [tuple(row[name] for name in odd.columns) for row in store.read(table).collect()]
        assert values.count(whole) == (2 if first is odd else 1)
        assert values.count(("p", 1, None, None)) == 3 - values.count(whole)
        store.overwrite(f"{table}-view", plain, {})
        store.overwrite(f"{table}-view", odd, {})
        assert [tuple(row) for row in store.read(f"{table}-view").collect()] == [whole]
    store.create("selection", odd.schema)
    store.append("selection", odd, note={})
    assert [tuple(row) for row in store.read("selection").collect()] == [whole]


@pytest.mark.embedded
def test_tables_take_columns_of_any_name(spark, folder):
    check_any_names(spark, folder)


@pytest.mark.spark
def test_tables_take_columns_of_any_name_on_spark(local_spark, folder):
    check_any_names(local_spark, folder)
