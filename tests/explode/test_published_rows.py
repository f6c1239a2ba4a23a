"""The published objective on all rows of a table."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.engine import encode_vectors
from gio_spark.errors import BudgetError, ConfigError, InputError
from gio_spark.explode import score_published, take_published
from gio_spark.gio import exact_path
from tests.gio.references import published_divergence

pytestmark = pytest.mark.embedded


@pytest.fixture(scope="module")
def case(spark):
    rng = np.random.default_rng(0)
    target = rng.standard_normal((80, 6)).astype(np.float32)
    pool = (0.3 + 1.6 * rng.standard_normal((5000, 6))).astype(np.float32)
    held = rng.uniform(-3, 3, (40, 6)).astype(np.float32)
    df = spark.createDataFrame(
        pa.table({"id": [f"r{i}" for i in range(len(pool))], "vector": encode_vectors(pool)})
    )
    return target, pool, held, df, score_published(df, target).cache()


def places(scored, chosen):
    rows = scored.where(chosen.keeps()).select("id").toArrow()["id"].to_pylist()
    return sorted(int(name[1:]) for name in rows)


@pytest.mark.parametrize("budget", [1, 137, 2500, 5000])
def test_the_rows_are_those_of_the_exact_path_on_arrays(case, budget):
    target, pool, held, _, scored = case
    chosen = take_published(scored, target, budget, initial=held)
    path = exact_path(target, pool, initial=held)
    assert places(scored, chosen) == sorted(path.order[:budget].tolist())
    assert chosen.rows == budget
    assert chosen.divergence == pytest.approx(path.divergence[budget - 1], rel=1e-6)


def test_the_curve_is_the_exact_path_at_its_places(case):
    target, pool, held, _, scored = case
    chosen = take_published(scored, target, 10, initial=held)
    path = exact_path(target, pool, initial=held)
    np.testing.assert_allclose(chosen.curve, path.divergence[chosen.curve_rows - 1], rtol=1e-6)
    assert chosen.curve_rows[-1] == len(pool)


def test_it_stops_before_the_divergence_rises(case):
    target, pool, held, _, scored = case
    chosen = take_published(scored, target, 5000, initial=held, stop="increase")
    path = exact_path(target, pool, initial=held)
    first = int(np.flatnonzero(np.diff(path.divergence) > 0)[0]) + 1
    assert 0 < chosen.rows < 5000
    assert abs(chosen.rows - first) <= np.diff(chosen.curve_rows).max()
    chosen_rows = pool[places(scored, chosen)]
    whole = published_divergence(target, np.concatenate([held, chosen_rows]))
    assert chosen.divergence == pytest.approx(whole, rel=1e-6)


def test_partitions_and_ties_change_nothing(spark, case):
    target, pool, _, _, _ = case
    doubled = np.repeat(pool[:400], 2, axis=0)
    df = spark.createDataFrame(
        pa.table({"id": [f"r{i}" for i in range(800)], "vector": encode_vectors(doubled)})
    )
    found = []
    for count in (1, 7):
        scored = score_published(df.repartition(count), target)
        chosen = take_published(scored, target, 301, seed=4)
        found.append((places(scored, chosen), chosen.threshold, chosen.tie))
    assert found[0] == found[1] and len(found[0][0]) == 301


def test_senseless_requests_are_refused(case):
    target, _, _, df, scored = case
    for budget in (0, 5001):
        with pytest.raises(BudgetError) as error:
            take_published(scored, target, budget)
        assert error.value.largest == 5000
    with pytest.raises(ConfigError, match="stop"):
        take_published(scored, target, 5, stop="later")
    with pytest.raises(InputError, match="matrix"):
        score_published(df, target[0])
