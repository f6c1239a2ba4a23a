"""Jobs whose text is an expression select what they select with the text as a column."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from gio_spark.engine.progress import Progress
from gio_spark.errors import InputError
from gio_spark.pipeline import run
from gio_spark.pipeline.commands.table_metrics import measure_table
from gio_spark.pipeline.refresh import refresh
from gio_spark.settings.gime import GimeSettings
from gio_spark.settings.inputs import InputSettings
from tests.pipeline import jobs

SILENT = Progress("silent")
POOL = jobs.text_rows("p", 240, 0, 60, seed=1)
TARGET = jobs.text_rows("t", 60, 0, 25, seed=2)
HELD_OUT = POOL.slice(7, 5)


def halves(text):
    words = text.split(" ")
    return " ".join(words[:5]), " ".join(words[5:])


def as_chat(row):
    first, second = halves(row["text"])
    turns = [("system", "left out"), ("user", first), ("assistant", second)]
    return [{"role": role, "content": content} for role, content in turns]


def as_sharegpt(row):
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return [{"from": names[m["role"]], "value": m["content"]} for m in as_chat(row)]


def rows_of(table):
    """Rows with one text in all the ways that an expression reaches it."""
    return [
        {
            "id": row["id"], "plain": "\n".join(halves(row["text"])),
            "first": halves(row["text"])[0], "second": halves(row["text"])[1],
            "doc": {"text": "\n".join(halves(row["text"]))},
            "messages": as_chat(row), "conversations": as_sharegpt(row),
        }
        for row in table.to_pylist()
    ]  # fmt: skip


def written(folder, kind):
    """Settings of the three inputs, in a format of files."""
    inputs = {}
    for name, table in (("pool", POOL), ("target", TARGET), ("held_out", HELD_OUT)):
        rows = rows_of(table)
        place = folder / f"{name}-{kind}"
        if kind == "parquet":
            jobs.write(pa.Table.from_pylist(rows), place.with_suffix(".parquet"))
            place = place.with_suffix(".parquet")
        elif kind == "delta":
            write_deltalake(str(place), pa.Table.from_pylist(rows))
        elif kind == "jsonl":
            place = place.with_suffix(".jsonl")
            place.write_text("\n".join(map(json.dumps, rows)))
        else:
            place = place.with_suffix(".json")
            place.write_text(json.dumps(rows))
        inputs[name] = str(place)
    return inputs


def settings(folder, inputs, text, roles=("user", "assistant"), **more):
    return jobs.settings(
        folder, **inputs, columns={"id": "id", "text": text, "vector": None, "source": None,
        "tokens": None, "chat_roles": roles}, budget=40, embedder="ngrams",
        workspace=str(folder / "ws"), within_cluster="density_ratio",
        clusters=8, **more,
    )  # fmt: skip


def selected(folder, kind, text, spark=None, **more):
    config = settings(folder, written(folder, kind), text, **more)
    return run(config, progress=SILENT, **({} if spark is None else {"spark": spark}))


@pytest.mark.embedded
def test_a_text_reached_by_an_expression_gives_the_selection_of_the_text(folder):
    expected = selected(folder, "parquet", "plain")
    ids = jobs.ids(expected.selected)
    assert len(ids) == 40
    assert not set(ids) & set(HELD_OUT["id"].to_pylist())
    for kind, text in (
        ("parquet", "messages"),
        ("parquet", "{first}\n{second}"),
        ("delta", "doc.text"),
        ("jsonl", "conversations"),
        ("array", "{messages[1].content}\n{messages[-1].content}"),
    ):
        by_text = selected(folder, kind, text)
        assert jobs.ids(by_text.selected) == ids, (kind, text)
        assert set(by_text.selected.columns) == set(expected.selected.columns)
        columns = by_text.selected.toArrow().select(["id", "messages", "conversations", "doc"])
        rows = {row["id"]: row for row in rows_of(POOL)}
        assert all(row == {k: rows[row["id"]][k] for k in row} for row in columns.to_pylist())


@pytest.mark.faults  # minutes
@pytest.mark.spark
@pytest.mark.timeout(900)
def test_a_text_reached_by_an_expression_gives_the_selection_of_the_text_on_spark(
    local_spark, folder
):
    expected = jobs.ids(selected(folder, "parquet", "plain", local_spark, engine="spark").selected)
    for kind, text in (("parquet", "{first}\n{second}"), ("jsonl", "messages")):
        by_text = selected(folder, kind, text, local_spark, engine="spark")
        assert jobs.ids(by_text.selected) == expected


@pytest.mark.embedded
def test_a_target_has_an_expression_of_its_own(folder):
    expected = jobs.ids(selected(folder, "parquet", "plain").selected)
    inputs = written(folder, "parquet")
    inputs["target"] = {"location": inputs["target"], "columns": {"id": "id", "text": "messages"}}
    config = settings(folder, inputs, "{first}\n{second}")
    assert jobs.ids(jobs.go(config).selected) == expected


@pytest.mark.embedded
def test_an_expression_of_several_columns_is_refreshed_where_one_of_them_changed(spark, folder):
    config = settings(folder, written(folder, "delta"), "messages")
    jobs.go(config)
    rows = rows_of(POOL)[:50]
    for row in rows[:10]:
        row["messages"][1]["content"] = "wort1 wort2"
        row["messages"][0]["content"] = "not part of the text"
    for row in rows[10:20]:
        row["messages"][0]["content"] = "not part of the text either"
    table = pa.Table.from_pylist([*rows, *rows_of(POOL)[50:]])
    write_deltalake(config.pool.location, table, mode="overwrite")
    done = refresh(config, spark=spark, progress=SILENT)
    assert (done.new_rows, done.changed_rows, done.gone_rows) == (0, 10, 0)


@pytest.mark.embedded
def test_unusual_roles_are_warned_of_and_texts_without_any_role_are_told(folder):
    inputs = written(folder, "jsonl")
    rows = rows_of(POOL)
    for row in rows[:30]:
        row["messages"].append({"role": "critic", "content": "bad"})
    (folder / "pool-jsonl.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = jobs.go(settings(folder, inputs, "messages"))
    warnings = [text for _, text, _ in done.summary["cautions"]]
    text = next(w for w in warnings if "critic" in w)
    assert "pool: messages of these roles are no part of the text" in text
    assert "critic (30)" in text
    with pytest.raises(InputError, match=r"columns.text 'messages'.*null content"):
        jobs.go(settings(folder, inputs, "messages", ("nobody",)))


@pytest.mark.embedded
def test_metrics_of_a_table_are_those_of_the_text(spark, folder):
    inputs = written(folder, "jsonl")

    def figures(text, target=None, **roles):
        table, other = (
            None if one is None else InputSettings(location=one) for one in (inputs["pool"], target)
        )
        done = measure_table(
            spark, table, settings=GimeSettings(profile="text"), target=other,
            columns={"id": "id", "text": text, **roles}, clusters=0, progress=SILENT,
        )  # fmt: skip
        return done.figures

    expected = figures("plain")
    assert figures("messages").equals(expected)
    assert figures("{first}\n{second}").equals(expected)
    assert not figures("messages", chat_roles=("user",)).equals(expected)
    assert figures("messages", inputs["target"]).equals(figures("plain", inputs["target"]))
    with pytest.raises(InputError, match=r"no field 'texts' .*did you mean 'text'"):
        figures("doc.texts")
