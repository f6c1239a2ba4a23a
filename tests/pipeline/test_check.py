"""`gio-spark check` on a finished job."""

from __future__ import annotations

from gio_spark.pipeline.check import check


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
