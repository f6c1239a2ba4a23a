"""The page of the checks."""

from __future__ import annotations

import numpy as np
import pytest

from gio_spark.gio import cluster_radii, nearest_clusters, reach_limit
from gio_spark.gio.selection_checks import (
    DataCheck,
    mode_coverage,
    negative_consistency,
    quantization_consistency,
    self_consistency,
)
from gio_spark.report.checks import render_checks

from .test_render import Page


@pytest.fixture(scope="module")
def checks():
    rng = np.random.default_rng(0)
    middles = rng.standard_normal((40, 5)) * 4
    rows = middles[rng.integers(40, size=4000)] + 0.5 * rng.standard_normal((4000, 5))
    found, squared = nearest_clusters(rows, middles, 1)
    counts = np.bincount(found[:, 0], minlength=40)
    radii = cluster_radii(np.bincount(found[:, 0], squared[:, 0], minlength=40), counts)
    limit = reach_limit(squared[:, 0], found[:, 0], radii)
    half = (np.bincount(found[part::2, 0], minlength=40) for part in (0, 1))
    return [
        self_consistency(*half, counts),
        negative_consistency(middles, radii, limit, rows[:300]),
        quantization_consistency(rows[:1000], middles),
        mode_coverage(middles, counts, rows[found[:, 0] > 4], radii),
    ]


def test_the_page_has_a_verdict_and_a_picture_for_each_check(checks, tmp_path):
    curve = [{"clusters": float(k), "share": 1 / k} for k in (1, 4, 16, 64)]
    page = render_checks(
        checks, tmp_path, facts={"pool": "<b>4,000</b> rows"}, error_curve=curve, clusters=40
    )
    text = page.read_text(encoding="utf-8")
    seen = Page(text)
    assert "1 of 4 checks failed: mode coverage." in seen.text
    assert "What to do: Use the objective" in seen.text
    assert "<b>4,000" not in text and "script" not in seen.tags
    assert {p.stem for p in tmp_path.glob("*.png")} == {
        "01_self_consistency", "02_negative_consistency", "04_mode_coverage", "clusters_error"
    }  # fmt: skip
    assert seen.tags.count("svg") == 4


def test_checks_that_hold_say_so_even_without_pictures(tmp_path):
    page = render_checks([DataCheck("my_check", True, "Fine.", "")], tmp_path)
    seen = Page(page.read_text(encoding="utf-8"))
    assert "All 1 checks held." in seen.text and "svg" not in seen.tags


def test_the_same_checks_give_the_same_page(checks, tmp_path):
    pages = [render_checks(checks, tmp_path / name).read_bytes() for name in "ab"]
    assert pages[0] == pages[1]
