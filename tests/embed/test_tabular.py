"""Tabular rows: against scikit-learn, gaps, categories, strings from CSV."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.preprocessing import StandardScaler

from gio_spark.embed import make_embedder
from gio_spark.errors import InputError
from gio_spark.settings.columns import Columns
from gio_spark.settings.embed import EmbedSettings


def fitted(rows: pa.Table, columns: Columns, **settings: object):
    embedder = make_embedder(EmbedSettings(**settings), columns)
    return embedder.with_state(embedder.fit(rows))


def test_numbers_are_standardised_as_scikit_learn_does():
    values = np.random.default_rng(0).gamma(2.0, size=(50, 3))
    rows = pa.table({name: values[:, i] for i, name in enumerate("abc")})
    embedder = fitted(rows, Columns(numeric=("a", "b", "c")))
    vectors, _ = embedder.embed(rows)
    np.testing.assert_allclose(vectors, StandardScaler().fit_transform(values), atol=1e-6)
    assert embedder.dimension == 3


def test_numbers_as_strings_give_the_same_vectors():
    values = [1.5, 2.0, None, 7.25]
    columns = Columns(numeric=("a",))
    numbers = pa.table({"a": pa.array(values)})
    strings = pa.table({"a": pa.array(["1.5", " 2 ", "", "7.25"])})
    one, _ = fitted(numbers, columns).embed(numbers)
    other, _ = fitted(strings, columns).embed(strings)
    assert one.tobytes() == other.tobytes()


def test_a_gap_is_the_mean_and_marked_where_the_sample_had_gaps():
    rows = pa.table({"a": [1.0, None, 3.0], "b": [1.0, 2.0, 3.0]})
    embedder = fitted(rows, Columns(numeric=("a", "b")))
    vectors, reasons = embedder.embed(rows)
    assert embedder.dimension == 3  # a, b, and the mark of a
    assert vectors[1].tolist() == [0.0, 0.0, 1.0]
    assert vectors[0, 2] == 0
    assert reasons.tolist() == [None, None, None]


def test_rows_that_cannot_be_used_have_a_reason():
    sample = pa.table({"a": ["1", "2"], "c": ["x", "y"]})
    embedder = fitted(sample, Columns(numeric=("a",), categorical=("c",)))
    rows = pa.table({"a": ["1", "one", "inf", None, None], "c": ["x", "x", "x", None, "x"]})
    _, reasons = embedder.embed(rows)
    assert reasons.tolist() == [
        None,
        "column 'a' is not a number",
        "NaN or infinite value",
        "null content",
        None,
    ]


def test_categories_are_fixed_unit_vectors_about_two_apart():
    rows = pa.table({"c": [f"value {i}" for i in range(200)]})
    embedder = fitted(rows, Columns(categorical=("c",)), category_dimension=256)
    vectors, _ = embedder.embed(rows)
    distances = ((vectors[:100] - vectors[100:]) ** 2).sum(axis=1)
    assert abs(distances.mean() - 2) < 0.1
    assert not embedder.needs_fit
    again, _ = embedder.embed(rows.slice(50, 1))
    assert again[0].tobytes() == vectors[50].tobytes()


def test_a_category_means_something_else_in_another_column_and_under_another_seed():
    rows = pa.table({"c": ["x"], "d": ["x"]})
    one, _ = fitted(rows, Columns(categorical=("c",))).embed(rows)
    other, _ = fitted(rows, Columns(categorical=("d",))).embed(rows)
    seeded, _ = fitted(rows, Columns(categorical=("c",)), seed=1).embed(rows)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, seeded)


def test_a_missing_category_is_one_of_its_own():
    rows = pa.table({"c": ["", None, "x"], "d": ["u", "u", "u"]})
    vectors, reasons = fitted(rows, Columns(categorical=("c", "d"))).embed(rows)
    assert len({vector.tobytes() for vector in vectors}) == 3
    assert reasons.tolist() == [None, None, None]


def test_a_constant_column_is_zero():
    rows = pa.table({"a": [5, 5, 5]})
    vectors, _ = fitted(rows, Columns(numeric=("a",))).embed(rows)
    assert vectors.tolist() == [[0.0]] * 3


def test_a_column_without_numbers_is_refused_by_name():
    with pytest.raises(InputError, match="Column 'a' has no number"):
        fitted(pa.table({"a": [None, "x"]}), Columns(numeric=("a",)))
    with pytest.raises(InputError, match="holds list"):
        fitted(pa.table({"a": [[1.0]]}), Columns(numeric=("a",)))
