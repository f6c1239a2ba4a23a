"""The comparison with random rows tells a good selection from a bad one."""

from __future__ import annotations

import pyarrow as pa
import pytest

from gio_spark.demo.demo_files import digits
from gio_spark.demo.random_comparison import compare, image_measures, text_measures


@pytest.fixture(scope="module")
def images() -> dict:
    return digits()


def test_clean_rows_of_the_wanted_classes_beat_random_ones(images):
    pool = images["pool"]
    ids = {
        row["id"]
        for row in pool.select(["id", "digit", "damage"]).to_pylist()
        if row["damage"] == "clean" and row["digit"] in (3, 5, 8)
    }
    comparisons = compare(pool, ids, image_measures(images["target"], images["held_out"]))
    assert comparisons[0].selected == 100 and comparisons[0].better
    assert 55 < comparisons[0].random < 65
    assert comparisons[1].better and comparisons[1].selected < 25


def test_rows_of_other_words_have_the_higher_cross_entropy():
    pool = pa.table(
        {
            "id": [str(i) for i in range(40)],
            "text": ["arrays of numbers and axes"] * 10 + ["songs of rivers and birds"] * 30,
            "package": ["numpy"] * 10 + ["poems"] * 30,
        }
    )
    held_out = pa.table({"text": ["numbers and axes"]})
    measures = text_measures(held_out, ("numpy",))
    near = compare(pool, {str(i) for i in range(10)}, measures)
    far = compare(pool, {str(i) for i in range(10, 20)}, measures)
    assert near[0].selected == 100 and far[0].selected == 0
    assert near[1].better and near[1].selected < far[1].selected and not far[1].better
