"""Overlap with held-out rows on the embedded engine."""

from __future__ import annotations

import inspect

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.engine import encode_vectors
from gio_spark.errors import ConfigError, InputError
from gio_spark.quantize import HeldOut, decontaminate
from gio_spark.settings.quantize import QuantizeSettings

pytestmark = pytest.mark.embedded

SENTENCE = "the cat sat on the mat and looked out of the window at the birds all day long"


@pytest.fixture(scope="module")
def pool(spark):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 16)).astype(np.float32)
    texts = [" ".join(rng.choice(list("abcdefghijklm"), 30)) for _ in range(40)]
    texts[3] = SENTENCE.upper() + "!"
    texts[4] = SENTENCE[: len(SENTENCE) // 2] + " " + " ".join(f"word{i}" for i in range(60))
    hashes = [f"hash-{i}" for i in range(40)]
    hashes[7] = "held-hash-1"
    held = rng.standard_normal((3, 16)).astype(np.float32)
    x[11] = 3 * held[2]
    x[12] = held[2] + rng.standard_normal(16)
    frame = pa.table(
        {
            "id": [f"p{i:02d}" for i in range(40)],
            "content_hash": hashes,
            "text": texts,
            "vector": encode_vectors(x),
        }
    )
    kept = pa.table(
        {
            "id": ["h0", "h1", "h2"],
            "content_hash": ["held-hash-0", "held-hash-1", "held-hash-2"],
            "text": [SENTENCE, "short text", None],
            "vector": encode_vectors(held),
        }
    )
    return spark.createDataFrame(frame), spark.createDataFrame(kept), x


def rows_of(df):
    return {r["id"]: r for r in df.toArrow().to_pylist()}


def test_each_kind_of_overlap_is_found_with_its_reason(spark, pool):
    df, held, x = pool
    for centroids in (None, x[:8]):
        found = rows_of(
            decontaminate(df.repartition(3), HeldOut.collect(held), centroids=centroids)
        )
        assert {i: r["reason"] for i, r in found.items()} == {
            "p03": "held_out_word_sequences",
            "p07": "held_out_content",
            "p11": "held_out_cosine",
        }
        assert found["p11"]["matched"] == "h2"
        assert found["p11"]["score"] > 0.999
        assert found["p03"]["score"] == 1.0


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [1, 0, 3, 2]])
def test_equal_matches_are_named_by_the_first_id_whichever_cell_is_looked_into_first(spark, order):
    # a and b are equally like the row between them; each shares one cell with it.
    held = pa.table(
        {"id": ["b", "a"], "vector": encode_vectors(np.float32([[1.0, 0.5], [0.5, 1.0]]))}
    )
    centroids = np.float32([[1.0, 0.9], [0.9, 1.0], [1.2, 0.1], [0.1, 1.2]])[order]
    row = pa.table({"id": ["p"], "vector": encode_vectors(np.float32([[1.0, 1.0]]))})
    overlaps = decontaminate(
        spark.createDataFrame(row),
        HeldOut.collect(spark.createDataFrame(held)),
        centroids=centroids,
        cosine_threshold=0.9,
    )
    assert rows_of(overlaps)["p"]["matched"] == "a"
    assert rows_of(overlaps)["p"]["score"] == pytest.approx(3 / np.sqrt(10), rel=1e-6)


def test_the_most_similar_held_out_row_is_named(spark):
    angles = np.radians([20.0, 5.0, 10.0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    held = pa.table({"id": ["a", "b", "c"], "vector": encode_vectors(vectors)})
    row = pa.table({"id": ["p"], "vector": encode_vectors(np.float32([[1.0, 0.0]]))})
    overlaps = decontaminate(
        spark.createDataFrame(row),
        HeldOut.collect(spark.createDataFrame(held)),
        cosine_threshold=0.9,
    )
    assert rows_of(overlaps)["p"]["matched"] == "b"
    assert rows_of(overlaps)["p"]["score"] == pytest.approx(np.cos(angles[1]), rel=1e-6)


def test_the_share_of_word_sequences_is_a_threshold(spark, pool):
    df, held, _ = pool
    loose = decontaminate(
        df.select("id", "text"), HeldOut.collect(held, length=5), gram_threshold=0.02
    )
    assert {"p03", "p04"} == set(rows_of(loose))


def test_functions_and_settings_set_rows_aside_alike():
    held, pool = (inspect.signature(f).parameters for f in (HeldOut.collect, decontaminate))
    settings = QuantizeSettings()
    assert held["length"].default == settings.contamination_grams == 13
    assert pool["gram_threshold"].default == settings.contamination_share == 0.5
    assert pool["cosine_threshold"].default == settings.contamination_cosine == 0.95


def test_rows_on_a_threshold_are_set_aside_and_thresholds_may_be_one(spark):
    held = HeldOut.collect(
        spark.createDataFrame(pa.table({"id": ["h"], "text": ["a b c d"]})), length=2
    )
    texts = pa.table({"id": ["p", "q"], "text": ["a b x", "a b c"]})
    for threshold, ids in ((0.5, {"p", "q"}), (0.51, {"q"}), (1.0, {"q"})):
        overlaps = decontaminate(spark.createDataFrame(texts), held, gram_threshold=threshold)
        assert set(rows_of(overlaps)) == ids


def test_no_more_held_out_rows_than_the_limit_are_brought(spark):
    table = spark.createDataFrame(pa.table({"id": ["a", "b", "c"], "text": ["x", "y", "z"]}))
    assert len(HeldOut.collect(table, limit=3).ids) == 3
    with pytest.raises(InputError, match="held-out rows"):
        HeldOut.collect(table, limit=2)


def test_rows_without_content_are_not_overlaps(spark, pool):
    _, held, _ = pool
    empty = pa.table(
        {"id": ["a"], "content_hash": pa.nulls(1, pa.string()), "text": pa.nulls(1, pa.string())}
    )
    assert rows_of(decontaminate(spark.createDataFrame(empty), HeldOut.collect(held))) == {}


def test_nothing_to_compare_by_is_refused(spark, pool):
    df, held, _ = pool
    with pytest.raises(InputError, match="nothing can be compared"):
        decontaminate(df.select("id", "text"), HeldOut.collect(held.select("id", "vector")))
    with pytest.raises(InputError, match="content_hash, text or vector"):
        HeldOut.collect(held.select("id"))
    with pytest.raises(InputError, match="empty"):
        HeldOut.collect(held.where("id = 'none'"))
    with pytest.raises(ConfigError, match="cosine"):
        decontaminate(df, HeldOut.collect(held), cosine_threshold=0)
