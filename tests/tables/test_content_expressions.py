"""Text by path, by template and of chat messages: the same on both engines and in every format."""

from __future__ import annotations

import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from gio_spark.errors import ConfigError, InputError
from gio_spark.settings.columns import Columns
from gio_spark.settings.inputs import InputSettings
from gio_spark.tables import open_input
from gio_spark.tables.content_expressions import content_expression
from gio_spark.tables.content_paths import template_parts
from gio_spark.tables.message_text import is_chat, json_value, text_at

CALL = {"function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
OPENAI = [
    {"role": "system", "content": "Be brief.", "tool_calls": None},
    {"role": "user", "content": "Rain in Oslo?", "tool_calls": None},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "yes", "tool_calls": None},
    {"role": "Assistant", "content": "Take a coat.", "tool_calls": None},
]
SHAREGPT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
PARTS = [
    {"role": "user", "content": [{"type": "text", "text": "What is"}, {"type": "image"}]},
    {"role": "user", "content": [{"type": "text", "text": "this?"}]},
]
ROWS = [
    {
        "id": "a", "doc.text": "a dot", "title": "Title", "body": "Body", "n": 7,
        "doc": {"text": "of a", "meta": {"lang": "en", "a.b": "dotted"}}, "tags": ["x", None, "y"],
        "messages": OPENAI, "conversations": SHAREGPT, "parts": PARTS,
        "threads": [{"turns": [{"say": "1"}, {"say": "2"}]}, {"turns": [{"say": "3"}]}],
        "json": '{"pages": [{"text": "one"}, {"text": "two"}], "n": 5}',
    },
    {
        "id": "b", "doc.text": "b dot", "title": None, "body": "Only body", "n": None,
        "doc": None, "tags": [], "messages": [], "conversations": None, "parts": None,
        "threads": [{"turns": None}, None], "json": "no JSON",
    },
    {
        "id": "c", "doc.text": None, "title": None, "body": None, "n": None,
        "doc": {"text": None, "meta": None}, "tags": None, "messages": None,
        "conversations": [{"from": "system", "value": "S"}], "parts": [], "threads": None,
        "json": None,
    },
]  # fmt: skip
EVERYONE = ("user", "assistant", "system", "tool")
CASES = [
    ("title", (), ["Title", None, None]),
    ("doc.text", (), ["a dot", "b dot", None]),
    ("{doc.text}!", (), ["a dot!", "b dot!", None]),
    ("doc.meta.lang", (), ["en", None, None]),
    ("doc.meta.a.b", (), ["dotted", None, None]),
    ("tags[0]", (), ["x", None, None]),
    ("tags[-1]", (), ["y", None, None]),
    ("tags[3]", (), [None, None, None]),
    ("tags[*]", (), ["x\ny", None, None]),
    ("messages[1].content", (), ["Rain in Oslo?", None, None]),
    ("messages[-2].content", (), ["yes", None, None]),
    ("messages[*].content", (), ["Be brief.\nRain in Oslo?\nyes\nTake a coat.", None, None]),
    ("messages[2].tool_calls[0].function.name", (), ["weather", None, None]),
    ("threads[*].turns[*].say", (), ["1\n2\n3", None, None]),
    ("threads[-1].turns[-1].say", (), ["3", None, None]),
    ("{title}\n{body}", (), ["Title\nBody", "\nOnly body", None]),
    ("{{{n}}} {title}", (), ["{7} Title", None, None]),
    ("{title}: {messages}", (), ["Title: Rain in Oslo?\nTake a coat.", None, None]),
    ("messages", (), ["Rain in Oslo?\nTake a coat.", None, None]),
    ("messages", ("tool", "SYSTEM"), ["Be brief.\nyes", None, None]),
    (
        "messages",
        ("assistant", "tool_calls"),
        ['weather {"city":"Oslo"}\nTake a coat.', None, None],
    ),
    ("conversations", (), ["Hi\nHello", None, None]),
    ("conversations", ("gpt", "system"), ["Hello", None, "S"]),
    ("parts", (), ["What is\nthis?", None, None]),
    ("parts[0].content", (), ["What is", None, None]),
    ("parts[*].content[*].type", (), ["text\nimage\ntext", None, None]),
]
JSON_CASES = [
    ("json.pages[*].text", (), ["one\ntwo", None, None]),
    ("json.pages[1].text", (), ["two", None, None]),
    ("{json.n} {json.pages}", (), ["5 one\ntwo", None, None]),
    ("json.missing", (), [None, None, None]),
]


def opened(spark, place, text, roles=(), key="id"):
    columns = Columns(id=key, text=text, **({"chat_roles": roles} if roles else {}))
    return open_input(spark, InputSettings(location=str(place)), columns, "pool")


def texts(spark, place, text, roles=()):
    one = opened(spark, place, text, roles)
    rows = one.rows.select("id", f"`{one.columns.text}`").toArrow().sort_by("id")
    return rows[one.columns.text].to_pylist()


def written(folder, kind):
    """The rows in a format of files."""
    place = folder / f"rows-{kind}"
    if kind == "delta":
        write_deltalake(str(place), pa.Table.from_pylist(ROWS))
        return place
    place.mkdir()
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), place / "rows.parquet")
    elif kind == "jsonl":
        (place / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    else:
        (place / "rows.json").write_text(json.dumps(ROWS, indent=1))
    return place


def check_formats(spark, folder):
    cases = [*CASES, *JSON_CASES]
    for kind in ("parquet", "delta", "jsonl", "array"):
        place = written(folder, kind)
        plain = opened(spark, place, "title")
        columns = []
        for i, (text, roles, _) in enumerate(cases):
            of_case = Columns(text=text, **({"chat_roles": roles} if roles else {}))
            expression = content_expression("pool", plain.schema, of_case)
            column = F.col(f"`{text}`") if expression is None else expression.text()
            columns.append(column.alias(f"case{i}"))
        table = plain.rows.select("id", *columns).toArrow().sort_by("id")
        for i, (text, roles, expected) in enumerate(cases):
            assert table[f"case{i}"].to_pylist() == expected, (kind, text, roles)
        by_path = opened(spark, place, "messages")
        assert texts(spark, place, "messages") == ["Rain in Oslo?\nTake a coat.", None, None]
        assert by_path.own_columns == plain.own_columns
        assert by_path.schema == plain.schema
        tables = [
            one.rows.select(*one.original_columns(one.rows)).toArrow() for one in (plain, by_path)
        ]
        assert tables[0].schema == tables[1].schema
        assert tables[0].sort_by("id").equals(tables[1].sort_by("id"))


@pytest.mark.embedded
def test_expressions_give_their_text_and_leave_the_columns_as_they_are(spark, folder):
    check_formats(spark, folder)


@pytest.mark.spark
def test_expressions_give_their_text_and_leave_the_columns_as_they_are_on_spark(
    local_spark, folder
):
    check_formats(local_spark, folder)


def test_python_and_the_engines_agree_on_the_text_of_a_path():
    schema = from_arrow_schema(pa.Table.from_pylist(ROWS).schema)
    for text, roles, expected in [*CASES, *JSON_CASES]:
        of_case = Columns(text=text, **({"chat_roles": roles} if roles else {}))
        expression = content_expression("pool", schema, of_case)
        if expression is None or len(expression.parts) > 1:
            continue
        (path,) = expression.parts
        values = [row[path.column] for row in ROWS]
        values = [json_value(value) for value in values] if path.is_json else values
        by_python = [text_at(value, path.steps, expression.roles) for value in values]
        assert by_python == expected, text


def check_maps_and_mixed_messages(spark, folder):
    """Maps, which only Parquet has, and messages whose values have no common type in JSON."""
    maps = pa.array([[("title", "T"), ("n", None)], None, []], pa.map_(pa.string(), pa.string()))
    pq.write_table(pa.table({"id": ["a", "b", "c"], "m": maps}), folder / "maps.parquet")
    assert texts(spark, folder / "maps.parquet", "m.title") == ["T", None, None]
    assert texts(spark, folder / "maps.parquet", "{m.title} {m.n}") == ["T ", None, None]
    rows = [
        {"id": "a", "messages": OPENAI},
        {"id": "b", "messages": PARTS},
        {"id": "c", "messages": [{"role": "assistant", "tool_calls": [
            {"name": "weather", "arguments": {"city": "Oslo", "at": {}}}]}]},
        {"id": "d", "messages": [{"role": "user", "content": "\U0001f600 pair"}]},
    ]  # fmt: skip
    (folder / "mixed.jsonl").write_text("\n".join(map(json.dumps, rows)))
    one = opened(spark, folder / "mixed.jsonl", "messages")
    assert one.schema["messages"].dataType.simpleString() == "string"
    place = folder / "mixed.jsonl"
    assert texts(spark, place, "messages") == [
        "Rain in Oslo?\nTake a coat.", "What is\nthis?", None, "\U0001f600 pair"
    ]  # fmt: skip
    assert texts(spark, place, "messages", ("tool_calls",)) == [
        'weather {"city":"Oslo"}', None, 'weather {"at":{},"city":"Oslo"}', None
    ]  # fmt: skip
    assert texts(spark, place, "messages[0].content")[:2] == ["Be brief.", "What is"]


@pytest.mark.embedded
def test_maps_and_messages_of_several_types(spark, folder):
    check_maps_and_mixed_messages(spark, folder)


@pytest.mark.spark
def test_maps_and_messages_of_several_types_on_spark(local_spark, folder):
    check_maps_and_mixed_messages(local_spark, folder)


@pytest.mark.embedded
def test_the_fields_of_an_alpaca_array_are_joined_by_a_template(spark, folder):
    rows = [
        {"id": 1, "instruction": "Add.", "input": "1 2", "output": "3"},
        {"id": 2, "instruction": "Greet.", "input": "", "output": "Hi."},
        {"id": 3, "instruction": "Greet.", "output": "Hi."},
    ]
    (folder / "alpaca.json").write_text(json.dumps(rows))
    text = "{instruction}\n{input}\n{output}"
    expected = ["Add.\n1 2\n3", "Greet.\n\nHi.", "Greet.\n\nHi."]
    assert texts(spark, folder / "alpaca.json", text) == expected


@pytest.mark.embedded
def test_csv_columns_are_joined_by_a_template(spark, folder):
    (folder / "a.csv").write_text('id,q,a,j\n1,Why?,So.,"[{""role"":""user"",""content"":""hm""}]"')
    with (folder / "a.csv").open("a") as file:
        # Of a key twice, and of half a surrogate pair, there is no telling what is meant.
        file.write('\n2,Why?,So.,"[{""role"":""user"",""content"":""a"",""content"":""b""}]"')
        file.write('\n3,Why?,So.,"[{""role"":""user"",""content"":""\\ud83d""}]"')
    assert texts(spark, folder / "a.csv", "{q}\n{a}") == ["Why?\nSo."] * 3
    assert texts(spark, folder / "a.csv", "j[0].content") == ["hm", None, None]
    assert texts(spark, folder / "a.csv", "j")[0] == '[{"role":"user","content":"hm"}]'


@pytest.mark.embedded
def test_without_an_id_the_hash_of_the_text_is_one(spark, folder):
    place = written(folder, "parquet")
    rows = opened(spark, place, "{title}\n{body}", key=None).rows.toArrow()
    ids = [hashlib.sha256(t.encode()).hexdigest()[:32] for t in ("Title\nBody", "\nOnly body")]
    assert set(ids) < set(rows["id"].to_pylist())
    assert set(rows["doc.text"].to_pylist()) == {"a dot", "b dot", None}
    by_name = opened(spark, place, "doc.text", key=None).rows.toArrow()
    assert hashlib.sha256(b"a dot").hexdigest()[:32] in by_name["id"].to_pylist()


@pytest.mark.embedded
def test_columns_named_like_those_that_are_added_keep_their_values(spark, folder):
    table = pa.table({"id": ["1"], "ID_": ["x"], "_content_text": ["own"], "d": [{"t": "text"}]})
    pq.write_table(table, folder / "a.parquet")
    one = opened(spark, folder / "a.parquet", "d.t")
    assert one.columns.text == "_content_text_"
    assert (
        one.rows.select(*one.original_columns(one.rows)).toArrow().to_pylist() == table.to_pylist()
    )
    assert texts(spark, folder / "a.parquet", "{id}/{d.t}") == ["1/text"]


@pytest.mark.embedded
@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("docs.text", InputError, r"lacks the column\(s\) columns.text = 'docs.text' \(did you"),
        ("{titel} {body}", InputError, r"no column 'titel' \(did you mean 'title'\?\); the col"),
        ("doc.txt", InputError, r"'doc.txt': there is no field 'txt' in column 'doc' \(did"),
        ("messages[0].contents", InputError, r"no field 'contents' in 'messages\[0\]' .*'content'"),
        ("messages.content", InputError, r"array<.*: write \[0\], \[-1\] or \[\*\] before .cont"),
        ("doc[0]", InputError, "column 'doc' is struct<.*: it has the fields"),
        ("doc", InputError, r"'doc' .* is struct<.*be a string, .*path: doc\.(text|meta) or doc"),
        ("{doc}", InputError, "column 'doc' is struct<.*, not a string; its fields are"),
        ("doc.meta", InputError, "'doc.meta' is struct<.*, not a string; its fields are"),
        ("tags", InputError, r"columns.text must be a string, messages or a path: tags\[\*\]"),
        ("n.x", InputError, "column 'n' is bigint: no step goes into it"),
        ("messages[1]", InputError, r"'messages\[1\]' is struct<.*, not a string; its fields are"),
        ("messages[x].content", ConfigError, r"cannot be read at '\[x\].content': write .field"),
        ("{title", ConfigError, "has a single '{' at character 1: write {column}, or {{ and }}"),
        ("title}", ConfigError, "has a single '}' at character 6"),
        ("{title} {}", ConfigError, "an empty pair of braces at character 9"),
        ("{{title}}", ConfigError, "names no column"),
    ],
)  # fmt: skip
def test_what_cannot_be_text_is_one_clear_error(spark, folder, text, error, message):
    with pytest.raises(error, match=message):
        opened(spark, written(folder, "parquet"), text)


@pytest.mark.embedded
@pytest.mark.parametrize("mixed", [False, True])
def test_messages_of_unknown_roles_are_counted_and_those_of_usual_ones_are_not(
    spark, folder, mixed
):
    messages = [
        {"role": role, "content": [1] if mixed and role == "tool" else "x"}
        for role in ("user", "Critic", "system", "tool", None, "critic")
    ]
    rows = [{"id": str(i), "messages": messages} for i in range(3)]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    one = opened(spark, folder / "a.jsonl", "messages")
    assert one.unusual_roles == {"critic": 6, "(none)": 3}
    roles = ("user", "critic")
    assert opened(spark, folder / "a.jsonl", "messages", roles).unusual_roles == {"(none)": 3}
    assert opened(spark, folder / "a.jsonl", "messages[0].content").unusual_roles == {}


@pytest.mark.embedded
def test_expression_and_roles_are_part_of_an_inputs_identity(spark, folder):
    place = written(folder, "parquet")
    variants = [
        ("title", ()), ("{title}", ()), ("{title} ", ()), ("messages", ()), ("messages", EVERYONE)
    ]  # fmt: skip
    prints = {opened(spark, place, text, roles).fingerprint() for text, roles in variants}
    assert len(prints) == len(variants)


def test_settings_from_before_there_were_expressions_keep_their_identity():
    assert Columns().digest() == "6c5d386477c7a88c"
    assert Columns(id="id", text="text").digest() == "5110bf2a4d57ae49"
    other = Columns(text="text", chat_roles=("user",))
    assert other.digest() != Columns(text="text").digest()
    assert Columns.model_validate(other.model_dump()) == other


@given(st.lists(st.one_of(st.text("ab{} \n"), st.just(0)), max_size=5))
def test_literal_parts_of_a_template_are_what_was_escaped(parts):
    escaped = [p.replace("{", "{{").replace("}", "}}") if p else "{c}" for p in [*parts, 0]]
    values = [p if is_literal else "VALUE" for p, is_literal in template_parts("".join(escaped))]
    assert "".join(values) == "".join(p or "VALUE" for p in [*parts, 0])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "text", "a"]), inner)
    ),
    max_leaves=10,
)
STEPS = st.lists(st.sampled_from([None, 0, -1, "content", "a", "text"]), max_size=3)


@given(VALUES, STEPS)
def test_any_value_gives_a_text_or_none(value, steps):
    text = text_at(value, steps, frozenset(["user", "tool_calls"]))
    assert text is None or isinstance(text, str)
    assert is_chat(value) in (True, False)
