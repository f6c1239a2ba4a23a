"""`gio-spark check` on a finished job."""

from __future__ import annotations

import json

from gio_spark.pipeline.check import check
from tests.pipeline import jobs


def test_each_check_gives_a_verdict_and_the_page_shows_it(job):
    done = check(job.settings)
    names = [one.name for one in done.checks]
    assert names[:3] == ["self_consistency", "negative_consistency", "quantisation_consistency"]
    assert set(names[3:]) == {"mode_coverage"}
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
