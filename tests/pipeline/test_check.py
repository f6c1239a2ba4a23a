"""`gio-spark check` on a finished job."""

from __future__ import annotations

import json

import numpy as np

from gio_spark.pipeline.commands.check import check
from tests.pipeline import jobs


def test_each_check_gives_a_verdict_and_the_page_shows_it(job):
    done = check(job.settings)
    names = [one.name for one in done.checks]
    assert names[:3] == ["self_consistency", "negative_consistency", "quantisation_consistency"]
    assert names[3] == "target_reach" and set(names[4:]) == {"mode_coverage"}
    assert all(one.text and one.remedy and one.figures for one in done.checks)
    negative = done.checks[1]
    assert negative.passed and negative.figures["unreachable"] > 0.95
    assert done.page.name == "checks.html" and done.page.is_relative_to(job.workspace)
    pictures = {path.stem for path in done.page.parent.glob("*.png")}
    assert {"01_self_consistency", "02_negative_consistency", "clusters_error"} <= pictures
    text = done.page.read_text(encoding="utf-8")
    assert all(one.name.replace("_", " ") in text for one in done.checks)


def test_a_number_of_clusters_left_to_the_tool_comes_with_its_error_curve(place):
    jobs.go(jobs.settings(place, clusters="auto"), until="quantize")
    records = jobs.table(place / "ws", "runs").to_pylist()
    detail = json.loads(next(r["detail"] for r in records if r["stage"] == "fit pool"))
    curve = detail["error_curve"]
    assert [point["clusters"] for point in curve[:3]] == [1, 2, 4]
    assert curve[0]["share"] > 0.9 and curve[-1]["share"] < 0.5 * curve[0]["share"]


def coverage(place, **changes):
    config = jobs.settings(place, quantize={"target_clusters": "auto"}, **changes)
    return next(one for one in check(config).checks if one.name == "mode_coverage")


def test_many_small_clusters_of_the_target_are_joined_to_modes_that_rows_can_fill(place):
    blobs = np.arange(300) % 2
    target = jobs.write(jobs.vector_target(300, blob=blobs), place / "two.parquet")
    result = coverage(place, target=target, budget=150)
    assert result.passed and result.figures["modes"] >= 2, result.text


def test_a_target_out_of_reach_is_checked_though_nothing_is_selected(place):
    far = jobs.vector_target(80).to_pandas()
    far["vector"] = [np.asarray(v) + 100 for v in far["vector"]]
    table = jobs.pa.Table.from_pandas(far, preserve_index=False)
    target = jobs.write(table.cast(jobs.vector_target().schema), place / "far.parquet")
    checked = check(jobs.settings(place, target=target, budget="auto"))
    reach = next(one for one in checked.checks if one.name == "target_reach")
    assert not reach.passed and reach.figures["unreachable"] > 0.95
    assert "Nothing is selected" in reach.text
    assert "mode_coverage" not in [one.name for one in checked.checks]


def test_a_mode_that_the_pool_lacks_is_missed(place):
    pool = jobs.write(jobs.vector_rows("p", 600, np.arange(600) % 3), place / "three.parquet")
    blobs = np.where(np.arange(300) % 10 < 7, 0, 3)
    target = jobs.write(jobs.vector_target(300, blob=blobs), place / "lack.parquet")
    result = coverage(place, pool=pool, target=target, budget=100)
    assert not result.passed
    assert 0.2 < result.figures["missed_mass"] < 0.4
