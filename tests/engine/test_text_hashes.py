"""Hashes of ids outside the engine are those of the engine, at any length."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pyspark.sql import functions as F

from gio_spark.engine import hash53
from gio_spark.kernels.xxhash64 import hash53_of_texts

pytestmark = pytest.mark.embedded


def test_texts_of_any_length_have_the_engines_hash(spark):
    texts = [("aé0" * 50).encode()[:n].decode(errors="ignore") for n in range(110)] + ["x" * 32]
    rows = spark.createDataFrame(pa.table({"id": texts}))
    salts = ["gio.explode.rank:0", "s" * 40]
    columns = [hash53(F.col("id"), salt).alias(f"h{i}") for i, salt in enumerate(salts)]
    table = rows.select("id", *columns).toArrow()
    hashes = zip(*(column.to_pylist() for column in table.columns[1:]), strict=True)
    by_engine = dict(zip(table["id"].to_pylist(), hashes, strict=True))
    own = hash53_of_texts(texts, salts)
    assert [tuple(pair) for pair in own.T.tolist()] == [by_engine[text] for text in texts]
