"""The whole pass: columns of the embeddings table, the same bits at any partitioning."""

from __future__ import annotations

import builtins
import datetime as dt
import struct

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from gio_spark.embed import (
    EMBEDDED_SCHEMA,
    Embedder,
    count_words,
    embed,
    embed_rows,
    fit_state,
    make_embedder,
)
from gio_spark.embed.embedder import no_reasons
from gio_spark.engine import output_schema
from gio_spark.errors import InputError
from gio_spark.settings.columns import Columns
from gio_spark.settings.embed import EmbedSettings

UTC = dt.timezone.utc


def text_rows(count: int = 60) -> pa.Table:
    return pa.table(
        {
            "id": [f"r{i:03d}" for i in range(count)],
            "body": [None if i % 11 == 0 else f"text number {i} on ships" for i in range(count)],
            "where": [f"s{i % 3}" for i in range(count)],
            "score": [str(i / 10) for i in range(count)],
            "when": [
                "2024-01-01T00:00:00Z" if i % 2 else "2024-06-01 12:30:00" for i in range(count)
            ],
        }
    )


COLUMNS = Columns(
    id="id", text="body", source="where", label="where", quality="score", event_time="when"
)


@pytest.mark.parametrize("name", ["ngrams", "wordllama"])
def test_the_same_rows_at_any_partitioning_and_batch_size(spark, name):
    if name == "wordllama":
        pytest.importorskip("wordllama", reason="extra 'static' is not installed")
    found = []
    for partitions, batch in ((1, 4096), (4, 7), (7, 1)):
        embedder = make_embedder(EmbedSettings(name=name, batch_rows=batch), COLUMNS)
        df = spark.createDataFrame(text_rows()).repartition(partitions)
        found.append(embed(df, embedder).toArrow().sort_by("id"))
    assert found[0].num_rows == 60
    assert found[0].equals(found[1])
    assert found[0].equals(found[2])


def test_fitted_embedders_give_the_same_rows_at_any_partitioning(spark):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (80, 36))
    rows = pa.table(
        {
            "id": [str(i) for i in range(80)],
            "pixels": pa.array(pixels.tolist(), pa.list_(pa.int32())),
            "a": rng.normal(size=80),
            "c": [str(i % 5) for i in range(80)],
        }
    )
    for columns in (
        Columns(image="pixels"),
        Columns(vector="pixels"),
        Columns(numeric=("a",), categorical=("c",)),
    ):
        found = []
        for partitions in (1, 4, 7):
            df = spark.createDataFrame(rows).repartition(partitions)
            embedder = make_embedder(EmbedSettings(dimension=None, fit_rows=50), columns)
            embedder = embedder.with_state(fit_state(df, embedder, total=80))
            found.append(embed(df, embedder).toArrow().sort_by("id"))
        assert found[0].equals(found[1])
        assert found[0].equals(found[2])
        assert found[0]["reason"].null_count == 80
        assert len(found[0]["vector"][0].as_py()) == 4 * embedder.dimension


def test_a_target_may_name_its_columns_differently(spark):
    embedder = make_embedder(EmbedSettings(name="ngrams"), Columns(text="body"))
    rows = text_rows(8)
    own = embed(spark.createDataFrame(rows), embedder).toArrow().sort_by("id")
    other = spark.createDataFrame(rows.rename_columns(["id", "my `odd.name", "b", "c", "d"]))
    renamed = embed(other, embedder, columns=Columns(text="my `odd.name")).toArrow().sort_by("id")
    assert own.equals(renamed)


def test_the_output_has_the_columns_and_types_of_the_table():
    out = embed_rows(text_rows(), make_embedder(EmbedSettings(name="ngrams"), COLUMNS))
    assert out.schema.remove_metadata() == output_schema(EMBEDDED_SCHEMA)
    row = out.slice(1, 1).to_pylist()[0]
    assert row["source"] == row["label"] == "s1"
    assert row["quality"] == 0.1
    assert row["event_time"] == dt.datetime(2024, 1, 1, tzinfo=UTC)
    assert row["ingest_time"] is None
    assert row["tokens"] == 5
    assert len(row["content_hash"]) == len(row["row_hash"]) == 32
    assert len(struct.unpack("<256f", row["vector"])) == 256


def test_vector_is_null_exactly_where_there_is_a_reason():
    out = embed_rows(text_rows(), make_embedder(EmbedSettings(name="ngrams"), COLUMNS))
    assert out["vector"].is_null().equals(out["reason"].is_valid())
    assert out["reason"].null_count == 54


def test_row_hash_follows_the_passed_columns_and_content_hash_the_content():
    rows = text_rows(4)
    embedder = make_embedder(EmbedSettings(name="ngrams"), COLUMNS)
    before = embed_rows(rows, embedder)
    changed = rows.set_column(3, "score", pa.array(["0.0", "0.7", "0.2", "0.3"]))
    after = embed_rows(changed, embedder)
    assert before["content_hash"].equals(after["content_hash"])
    same = pc.equal(before["row_hash"], after["row_hash"]).to_pylist()
    assert same == [True, False, True, True]


def test_passed_values_that_cannot_be_read_cost_their_row_only():
    rows = pa.table(
        {
            "id": list("abcd"),
            "t": ["one two", "three", "four", "five"],
            "n": ["12", "many", None, "-3"],
            "q": ["0.5", "0.5", "good", ""],
            "e": ["2024-01-01", "2024-01-01", "2024-01-01", "soon"],
        }
    )
    columns = Columns(text="t", tokens="n", quality="q", event_time="e")
    out = embed_rows(rows, make_embedder(EmbedSettings(name="ngrams"), columns))
    assert out["reason"].to_pylist() == [
        None,
        "column 'n' is not a number",
        "column 'q' is not a number",
        "column 'e' is not a time",
    ]
    assert out["tokens"].to_pylist() == [12, 1, 1, 1]


@pytest.mark.parametrize(
    "times",
    [
        pa.array([dt.date(2024, 5, 1)]),
        pa.array([dt.datetime(2024, 5, 1)], pa.timestamp("ns")),
        pa.array([dt.datetime(2024, 5, 1)], pa.timestamp("us", "UTC")),
        pa.array([" 2024-05-01 "]),
        pa.array(["2024-05-01T02:00:00+02:00"]),
        pa.array(["2024-05-01T00:00:00Z"]),
    ],
)
def test_times_of_every_kind_are_utc(times):
    rows = pa.table({"id": ["a"], "t": ["text"], "e": times})
    embedder = make_embedder(EmbedSettings(name="ngrams"), Columns(text="t", event_time="e"))
    assert embed_rows(rows, embedder)["event_time"].to_pylist() == [
        dt.datetime(2024, 5, 1, tzinfo=UTC)
    ]


def test_a_role_of_the_wrong_type_is_refused_by_name():
    rows = pa.table({"id": ["a"], "t": ["text"], "x": [[1]]})
    for role in ("source", "quality", "event_time", "tokens"):
        columns = Columns(**{"text": "t", role: "x"})
        with pytest.raises(InputError, match="Column 'x'"):
            embed_rows(rows, make_embedder(EmbedSettings(name="ngrams"), columns))


def test_words_are_counted_between_white_space():
    texts = pa.array(["a b", "", None, "  one  ", "tab\tand\nline", "x", " "])
    assert count_words(texts).tolist() == [2, 1, 1, 1, 3, 1, 1]
    assert count_words(texts.slice(3, 2)).tolist() == [1, 3]
    assert count_words(pa.array([], pa.string())).tolist() == []


def test_rows_without_text_count_as_one_token():
    rows = pa.table({"id": ["a", "b"], "v": [[1.0, 2.0], [3.0, 4.0]]})
    embedder = make_embedder(EmbedSettings(dimension=2), Columns(vector="v"))
    assert embed_rows(rows, embedder)["tokens"].to_pylist() == [1, 1]


class Raising(Embedder):
    """Raises at texts that begin with the name of an error; may give NaN, or too few rows."""

    name, revision, dimension, reads = "raising", "1", 1, ("body",)

    def embed(self, rows):
        texts = rows["body"].to_pylist()
        for text in texts:
            if text[:1].isupper():
                raise getattr(builtins, text.split()[0])(text)
        vectors = np.array([[np.nan if "nan" in t else len(t)] for t in texts], np.float32)
        return vectors[: -1 if "few" in texts else None], no_reasons(len(texts))


RAISING = Raising(EmbedSettings(), Columns(id="id", text="body"))


def bodies(texts: list[str]) -> pa.Table:
    return pa.table({"id": [str(i) for i in range(len(texts))], "body": texts})


def test_rows_at_which_an_embedder_raises_are_set_apart_and_the_others_embedded():
    texts = [f"text {i}" for i in range(300)]
    texts[7], texts[8], texts[299], texts[50] = "ValueError a", "KeyError b", "TypeError", "nan"
    rows = embed_rows(bodies(texts), RAISING)
    reasons = {i: reason for i, reason in enumerate(rows["reason"].to_pylist()) if reason}
    assert reasons == {
        7: "the embedder raised ValueError",
        8: "the embedder raised KeyError",
        50: "NaN or infinite value",
        299: "the embedder raised TypeError",
    }
    vectors = rows["vector"].to_pylist()
    assert [v is None for v in vectors] == [i in reasons for i in range(300)]
    assert vectors[100] == struct.pack("<f", len("text 100"))
    # However few rows a batch has.
    assert embed_rows(bodies(texts[7:8]), RAISING)["reason"].to_pylist() == [reasons[7]]


def test_an_embedder_that_raises_at_every_row_or_for_another_reason_stops():
    with pytest.raises(ValueError, match="ValueError 0"):
        embed_rows(bodies([f"ValueError {i // 64}" for i in range(1000)]), RAISING)
    for error in ("RuntimeError", "MemoryError", "ConnectionError"):
        with pytest.raises(getattr(builtins, error)):
            embed_rows(bodies(["a", error, "b"]), RAISING)
    with pytest.raises(InputError, match=r"'raising' gave vectors of shape \(2, 1\)"):
        embed_rows(bodies(["a", "few", "b"]), RAISING)


def test_rows_at_which_an_embedder_raises_are_the_same_at_any_partitioning(spark):
    texts = [f"ValueError {i}" if i % 17 == 0 else f"text {i}" for i in range(200)]
    df = spark.createDataFrame(bodies(texts))
    results = [embed(df.repartition(parts), RAISING).toArrow().sort_by("id") for parts in (1, 3)]
    assert results[0].equals(results[1])
    assert results[0].num_rows - results[0]["vector"].null_count == 188
