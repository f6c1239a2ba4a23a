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
from gio_spark.report.checks_page import render_checks

from .test_html_page import Page


@pytest.fixture(scope="module")
def checks():
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((40, 5)) * 4
    rows = centers[rng.integers(40, size=4000)] + 0.5 * rng.standard_normal((4000, 5))
    nearest, squared = nearest_clusters(rows, centers, 1)
    counts = np.bincount(nearest[:, 0], minlength=40)
    radii = cluster_radii(np.bincount(nearest[:, 0], squared[:, 0], minlength=40), counts)
    limit = reach_limit(squared[:, 0], nearest[:, 0], radii)
    half = (np.bincount(nearest[part::2, 0], minlength=40) for part in (0, 1))
    return [
        self_consistency(*half, counts),
        negative_consistency(centers, radii, limit, rows[:300]),
        quantization_consistency(rows[:1000], centers),
        mode_coverage(centers, counts, rows[nearest[:, 0] > 4], radii),
    ]


def test_the_page_has_a_verdict_and_a_picture_for_each_check(checks, tmp_path):
    curve = [{"clusters": float(k), "share": 1 / k} for k in (1, 4, 16, 64)]
    page = render_checks(
        checks, tmp_path, facts={"pool": "<b>4,000</b> rows"}, error_curve=curve, clusters=40
    )
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    assert "1 of 4 checks failed: mode coverage." in parsed.text
    assert "What to do: Use the objective" in parsed.text
    assert "<b>4,000" not in text and "script" not in parsed.tags
    assert {p.stem for p in tmp_path.glob("*.png")} == {
        "01_self_consistency", "02_negative_consistency", "04_mode_coverage", "clusters_error"
    }  # fmt: skip
    assert parsed.tags.count("svg") == 4


def test_checks_that_hold_say_so_even_without_pictures(tmp_path):
    page = render_checks([DataCheck("my_check", True, "Fine.", "")], tmp_path)
    parsed = Page(page.read_text(encoding="utf-8"))
    assert "All 1 checks held." in parsed.text and "svg" not in parsed.tags


def test_the_same_checks_give_the_same_page(checks, tmp_path):
    pages = [render_checks(checks, tmp_path / name).read_bytes() for name in "ab"]
    assert pages[0] == pages[1]
