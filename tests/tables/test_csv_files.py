"""CSV files are read as they were written: dialects, borders of blocks, long fields, encodings."""

from __future__ import annotations

import csv
import io
import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.errors import InputError
from gio_spark.settings.columns import Columns
from gio_spark.settings.inputs import CsvSettings, InputSettings
from gio_spark.tables import csv_files, open_input

COLUMNS = Columns(id="id", text="text")
TRICKY = [
    'she said "yes, and no" and\nleft \\ for good',
    'a "quoted" word',
    "C:\\dir\\",
    'ends in a quote "',
    '\\"',
    "plain",
    "crlf\r\ninside",
    ",,,",
    "ünï",
]


def texts(spark, place, **csv_settings):
    """Id -> text of the usable rows, and the number of others."""
    settings = InputSettings(location=str(place), csv=CsvSettings(**csv_settings))
    opened = open_input(spark, settings, COLUMNS, "pool")
    rows = opened.rows.select("id", "text").toArrow().to_pylist()
    bad = 0 if opened.bad is None else opened.bad.toArrow().num_rows
    return {row["id"]: row["text"] for row in rows}, bad


def backslashed(rows):
    """Rows as Spark writes them: quotes and backslashes of quoted fields after a backslash."""
    lines = ["id,text"]
    for number, text in rows:
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        quoted = any(c in text for c in '",\n\r\\')
        lines.append(f'{number},"{escaped}"' if quoted else f"{number},{text}")
    return "\n".join(lines) + "\n"


@pytest.mark.embedded
def test_backslash_escapes_are_told_from_the_files_or_set(spark, folder):
    rows = list(enumerate(TRICKY))
    truth = {str(number): text for number, text in rows}
    (folder / "spark.csv").write_text(backslashed(rows), newline="")
    assert texts(spark, folder / "spark.csv") == (truth, 0)
    assert texts(spark, folder / "spark.csv", escape="backslash") == (truth, 0)
    # One file with proof speaks for the others that were written with it.
    (folder / "parts").mkdir()
    (folder / "parts" / "a.csv").write_text(backslashed(rows[:3]), newline="")
    (folder / "parts" / "b.csv").write_text(backslashed(rows[3:]), newline="")
    assert texts(spark, folder / "parts") == (truth, 0)


@pytest.mark.embedded
def test_doubled_quotes_stay_what_they_are_beside_backslashes(spark, folder):
    with (folder / "a.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("id", "text"), *enumerate(TRICKY)])
    assert texts(spark, folder / "a.csv") == ({str(i): t for i, t in enumerate(TRICKY)}, 0)


@pytest.mark.parametrize("block", [7, 64, 1000])
@pytest.mark.parametrize("escape", ["double", "backslash"])
def test_fields_and_line_ends_meet_no_border_of_blocks(monkeypatch, block, escape):
    monkeypatch.setattr(csv_files, "_BLOCK", block)
    draw = random.Random(block)
    rows = [(str(i), draw.choice(TRICKY) * draw.randint(1, 9)) for i in range(200)]
    if escape == "double":
        out = io.StringIO(newline="")
        csv.writer(out, lineterminator="\r\n").writerows([("id", "text"), *rows])
        content = out.getvalue()
    else:
        content = backslashed(rows)
    dialect = csv_files.CsvDialect(CsvSettings(escape=escape))
    header = csv_files.header_of(io.BytesIO(content.encode()), "a.csv", dialect)
    tables = csv_files.csv_tables(
        io.BytesIO(content.encode()), "a.csv", dialect, header, ["id", "text"]
    )
    table = pa.concat_tables(tables)
    assert list(zip(*(table[n].to_pylist() for n in ("id", "text")), strict=True)) == rows
    assert table["_malformed"].null_count == len(rows)


@pytest.mark.embedded
def test_a_field_of_several_blocks_is_one_field(spark, folder):
    long = "long text, with commas " * 500_000
    (folder / "a.csv").write_text(f'id,text\n1,"{long}"\n2,short\n')
    assert texts(spark, folder / "a.csv") == ({"1": long, "2": "short"}, 0)


@pytest.mark.embedded
def test_separator_quote_and_encoding_can_be_set(spark, folder):
    content = "id;text\n1;'a;b'\n2;café\n"
    (folder / "a.csv").write_bytes(content.encode("latin-1"))
    settings = {"separator": ";", "quote": "'", "encoding": "latin-1"}
    assert texts(spark, folder / "a.csv", **settings) == ({"1": "a;b", "2": "café"}, 0)
    (folder / "b.csv").write_text('id|text\n1|5" pipe\n2|"\n')
    assert texts(spark, folder / "b.csv", separator="|", quote="") == (
        {"1": '5" pipe', "2": '"'},
        0,
    )
    (folder / "c.csv").write_text("id,text\n1,größer\n", encoding="utf-16")
    assert texts(spark, folder / "c.csv", encoding="utf-16") == ({"1": "größer"}, 0)
    with pytest.raises(InputError, match=r"UTF-16: set csv\.encoding"):
        texts(spark, folder / "c.csv")
    with pytest.raises(InputError, match="no encoding is called 'utf-99'"):
        texts(spark, folder / "b.csv", encoding="utf-99")


@pytest.mark.embedded
def test_a_byte_order_mark_is_no_part_of_the_first_name(spark, folder):
    (folder / "a.csv").write_text("id,text\n1,one\n", encoding="utf-8-sig")
    assert texts(spark, folder / "a.csv") == ({"1": "one"}, 0)


@pytest.mark.embedded
def test_a_replacement_character_of_the_files_own_is_text(spark, folder):
    (folder / "a.csv").write_bytes("id,text\n1,odd \ufffd char\n".encode() + b"2,caf\xe9\n")
    good, bad = texts(spark, folder / "a.csv")
    assert good == {"1": "odd \ufffd char"} and bad == 1


@pytest.mark.embedded
def test_folders_that_name_columns_give_them_to_text_files(spark, folder):
    for language in ("en", "de"):
        part = folder / "pool" / f"lang={language}"
        part.mkdir(parents=True)
        (part / "a.jsonl").write_text(f'{{"id": "{language}1", "text": "x"}}\n')
    settings = InputSettings(location=str(folder / "pool"))
    columns = Columns(id="id", text="text", source="lang")
    opened = open_input(spark, settings, columns, "pool")
    rows = opened.rows.select("id", "lang").toArrow().to_pylist()
    assert sorted((r["id"], r["lang"]) for r in rows) == [("de1", "de"), ("en1", "en")]


# Texts of roles that would become another value, or one that depends on the day: refused.
UNFIT = {
    "quality": ["1e400", "-1e309", "0x10"],
    "tokens": ["0x10", "1e30", "99999999999999999999", "1.5"],
    "event_time": ["10:30", "now", "99999-01-01", "10:30:00.1234"],
    "vector": ["[1e39]", "[1e400]", "{}", "[1] [2]"],
}
FIT = {
    "quality": {"1e300": 1e300, "inf": float("inf"), ".5": 0.5},
    "tokens": {"9007199254740993": 9007199254740993, "5.0": 5},
    "event_time": {"2024": (2024, 1, 1), "May 2, 2024": (2024, 5, 2), "3.2.24": (2024, 3, 2)},
    "vector": {"[3e38, 1]": [float(np.float32(3e38)), 1.0]},
}


@pytest.mark.embedded
def test_values_out_of_the_range_of_their_role_are_quarantined(spark, folder):
    columns = Columns(id="id", text="text", **{role: role for role in FIT})
    with (folder / "a.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", "text", *FIT])
        for role in FIT:
            for text in (*FIT[role], *UNFIT[role]):
                out.writerow([f"{role} {text}", "x", *(text if r == role else "" for r in FIT)])
    opened = open_input(spark, InputSettings(location=str(folder)), columns, "pool")
    values = {row["id"]: row for row in opened.rows.toArrow().to_pylist()}
    for role, texts_of_role in FIT.items():
        for text, value in texts_of_role.items():
            read = values.pop(f"{role} {text}")[role]
            assert ((read.year, read.month, read.day) if role == "event_time" else read) == value
    assert not values
    reasons = Counter(opened.bad.toArrow()["reason"].to_pylist())
    assert reasons == {f"malformed value in column {r!r}": len(UNFIT[r]) for r in UNFIT}


@pytest.mark.spark
def test_csv_as_spark_itself_writes_it_is_read_as_it_was(local_spark, folder):
    rows = [(str(i), text) for i, text in enumerate(TRICKY)]
    frame = local_spark.createDataFrame(rows, "id string, text string")
    frame.coalesce(1).write.option("header", value=True).csv(str(folder / "written"))
    assert texts(local_spark, folder / "written") == (dict(rows), 0)
