"""JSONL and JSON arrays: columns have the types of their values, exactly, on every engine."""

from __future__ import annotations

import io
import json
import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gio_spark.errors import InputError
from gio_spark.settings.columns import Columns
from gio_spark.settings.inputs import InputSettings
from gio_spark.tables import json_types, open_input
from gio_spark.tables.json_types import array_rows, arrow_type, common_type, type_of_value

COLUMNS = Columns(id="id", text="text")
ROWS = [
    {
        "id": i, "text": f"row {i}", "n": i, "share": i if i % 2 else i / 4, "ok": i % 3 == 0,
        "big": (1 << 62) + i, "huge": (1 << 70) + i, "mixed": i if i % 2 else "x", "none": None,
        "exact": (1 << 53) + 1 if i == 1 else 0.5,
        "turns": [{"role": "user", "content": f"hi {i}"}], "meta": {"lang": "en", "tags": ["a"]},
        "odd": [{"arguments": {"k": i} if i % 2 else "k"}], "empty": {},
    }
    for i in range(40)
]  # fmt: skip
TYPES = {
    "id": "bigint", "text": "string", "n": "bigint", "share": "double", "ok": "boolean",
    "big": "bigint", "huge": "string", "mixed": "string", "none": "string", "exact": "string",
    "turns": "array<struct<content:string,role:string>>",
    "meta": "struct<lang:string,tags:array<string>>", "odd": "string", "empty": "string",
}  # fmt: skip


def read(spark, place):
    """The input's own columns, by id, and their types."""
    opened = open_input(spark, InputSettings(location=str(place)), COLUMNS, "pool")
    table = opened.rows.select(*opened.original_columns(opened.rows)).toArrow()
    types = {f.name: f.dataType.simpleString() for f in opened.schema.fields}
    return sorted(table.to_pylist(), key=lambda row: row["id"]), types


def carried(value, name):
    """What a value comes back as: JSON text where a column has no type of its own."""
    if value is None or TYPES[name] != "string" or isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"))


def check(spark, place):
    rows, types = read(spark, place)
    assert types == TYPES
    assert rows == [{name: carried(row[name], name) for name in rows[0]} for row in ROWS]


@pytest.mark.embedded
def test_columns_of_lines_have_the_types_of_their_values(spark, folder):
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    check(spark, folder / "a.jsonl")


@pytest.mark.embedded
@pytest.mark.parametrize("style", ["pretty", "one line", "a line each"])
def test_a_json_array_is_read_as_rows(spark, folder, style):
    text = {
        "pretty": json.dumps(ROWS, indent=2),
        "one line": json.dumps(ROWS),
        "a line each": "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
    }[style]
    (folder / "a.json").write_text(text, encoding="utf-8-sig")
    check(spark, folder / "a.json")


@pytest.mark.spark
def test_columns_of_lines_have_the_types_of_their_values_on_spark(local_spark, folder):
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    check(local_spark, folder / "a.jsonl")


# What a parser would change without a word: element -> reason.
CHANGED = {
    b'{"id": "b", "text": "x", "text": "y"}': "a key twice in one object",
    b'{"id": "c", "text": "x", "deep": [{"k": 1, "k": 1}]}': "a key twice in one object",
    b'{"id": "d", "text": "x", "n": 1e400}': "a number out of range",
    b'{"id": "e", "text": "x", "n": -17976931348623159e292}': "a number out of range",
    b'{"id": "f", "text": "half \\ud83d"}': "half of a surrogate pair",
    b'{"id": "g", "text": "x", "\\udE00": 1}': "half of a surrogate pair",
    b'{"id": "h", "text": "\xed\xa0\xbd"}': "not UTF-8",
    b'{"id": "i", "text": "caf\xe9"}': "not UTF-8",
}
AS_IT_IS = b'{"id": "a", "text": "\\ud83d\\ude00 \\\\ud83d", "n": 1.7976931348623157e308}'


@pytest.mark.embedded
@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_what_no_column_can_hold_is_quarantined_with_its_reason(spark, folder, kind):
    elements = [AS_IT_IS, *CHANGED]
    content = b"\n".join(elements) if kind == "jsonl" else b"[" + b",\n".join(elements) + b"]"
    (folder / f"a.{kind}").write_bytes(content)
    opened = open_input(spark, InputSettings(location=str(folder)), COLUMNS, "pool")
    assert opened.rows.select("id", "text", "n").toArrow().to_pylist() == [
        {"id": "a", "text": "\U0001f600 \\ud83d", "n": 1.7976931348623157e308}
    ]
    bad = opened.bad.toArrow().to_pylist()
    assert {row["detail"]: row["reason"] for row in bad} == {
        line.decode("utf-8", "replace"): f"malformed line: {reason}"
        for line, reason in CHANGED.items()
    }


@pytest.mark.parametrize("block", [1, 5, 100])
def test_arrays_are_read_alike_whatever_the_blocks(monkeypatch, block):
    monkeypatch.setattr(json_types, "_BLOCK", block)
    draw = random.Random(block)
    rows = [{"a": "é" * draw.randint(0, 30), "b": [draw.random()]} for _ in range(20)]
    content = json.dumps([*rows[:10], 12345, *rows[10:]], ensure_ascii=False).encode()
    values = list(array_rows(io.BytesIO(content), "a.json"))
    assert [value for value, reason, _ in values if reason is None] == rows
    assert [text for _, reason, text in values if reason] == ["12345"]
    for broken in (content[:-30], content[:-1], content + b"[]", content.replace(b"12345", b"?")):
        with pytest.raises(InputError, match=r"a\.json: its JSON array is broken after \d+ elem"):
            list(array_rows(io.BytesIO(broken), "a.json"))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 65), 1 << 65) | st.text("ab", max_size=3)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(st.lists(VALUES, max_size=6))
def test_a_common_type_holds_every_value_exactly(values):
    kind = arrow_type(common_type(map(type_of_value, values)))
    if kind == pa.string():
        return
    back = pa.array(values, kind).to_pylist()
    for value, read_back in zip(values, back, strict=True):
        assert without_nulls(read_back) == without_nulls(value)


def without_nulls(value):
    """Objects without their absent fields: a struct has them all."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value
