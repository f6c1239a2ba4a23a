"""The metrics benchmark stores finished parts, and its figures follow from the stored lines."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_sensitivity_analysis import TINY, noisy_labels

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_gime
import gime_figures
import gime_study
from gime_tasks import Case


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A study of one seed, then of two."""
    folder = tmp_path_factory.mktemp("study")
    built_cases = []

    def make():
        built_cases.append(1)
        sample, task = noisy_labels(600)
        return Case("noisy", sample, sample.rows["cluster"].values, task)

    def go(seeds, stop=np.inf):
        return gime_study.study(None, make, "noisy", folder, seeds, TINY, stop)

    first = go(1)
    before = (folder / "seed-00.json").stat().st_mtime_ns
    second = go(2)
    return folder, built_cases, before, first, second, go


def test_a_rerun_does_the_missing_seeds_alone(studied):
    folder, built_cases, before, first, second, go = studied
    assert (folder / "seed-00.json").stat().st_mtime_ns == before
    pd.testing.assert_frame_equal(second[1][second[1]["seed"] == 0], first[1])
    assert sorted(second[1]["seed"].unique()) == [0, 1]
    built = len(built_cases)
    go(2)
    assert len(built_cases) == built
    # After the last moment nothing is started, and what is there is shown.
    late = go(3, stop=time.monotonic())
    assert len(late[1]) == len(second[1]) and len(built_cases) == built
    assert not list(folder.glob("*.half"))


def test_figures_have_paired_intervals_gaps_and_time_saved(studied, capsys):
    _, _, _, _, (learnt, lines), _ = studied
    figures, tables = gime_figures.summarise("noisy", learnt, lines)
    figure_of = {f["figure"]: f for f in figures}
    gain = figure_of["noisy, gime over random at 10%"]
    paired = lines[lines["share"] == 0.1].pivot_table(index="seed", columns="way", values="score")
    assert gain["value"] == pytest.approx((paired["gime"] - paired["random"]).mean())
    assert gain["low"] <= gain["value"] <= gain["high"]
    assert figure_of["noisy, sensitivity runs"]["value"] == learnt["training_seconds"] > 0
    ways = {r["way"] for r in tables["curve"]}
    assert ways == {"random", "stratified", "gio", "gime", "gime+gio", "full"}
    assert json.loads(json.dumps(gime_study.plain(tables)))["sensitivity"]
    assert "noisy" in capsys.readouterr().out


def lines_by_hand() -> pd.DataFrame:
    rows = [
        {"way": way, "share": share, "rows": int(1000 * share), "seed": seed,
         "score": score + 0.01 * seed, "seconds": share}
        for seed in (0, 1, 2)
        for way, share, score in (
            ("random", 0.1, 0.6), ("random", 0.5, 0.7), ("gime", 0.1, 0.65), ("full", 1.0, 0.8),
        )
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_gap_closed_and_the_equal_random_subset_are_right():
    lines = lines_by_hand()
    value, low, high = gime_figures.closed(lines, "gime", 0.1)
    assert value == pytest.approx(0.05 / 0.2)
    assert low <= value <= high
    np.testing.assert_allclose(gime_figures.paired(lines, "gime", 0.1), 0.05)
    rows, seconds = gime_figures.equal_random(gime_figures.curve(lines), 0.66)
    assert (rows, seconds) == (pytest.approx(300), pytest.approx(0.3))
    assert gime_figures.equal_random(gime_figures.curve(lines), 0.9) is None
    # Student's t of two differences: 12.7 standard errors.
    assert gime_figures.half_width(np.array([0.0, 1.0])) == pytest.approx(12.706 * 0.5, rel=1e-3)


def test_a_part_replaces_itself_alone_in_the_results(tmp_path):
    out = tmp_path / "results" / "gime.json"
    for part, value in (("adult", 1), ("bank", 2), ("adult", 3)):
        bench_gime.merge(out, part, {"figures": [{"figure": part, "value": value}]})
    stored = json.loads(out.read_text())
    assert {f["figure"]: f["value"] for f in stored["figures"]} == {"adult": 3, "bank": 2}
    assert set(stored["parts"]) == {"adult", "bank"} and "machine" in stored["parts"]["bank"]
