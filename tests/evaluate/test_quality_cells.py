"""The quality benchmark's file of finished cells: what is there is not computed again."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def quality_cells(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import quality_cells

    return quality_cells


def planned(quality_cells, *, version: int = 1, measures=("jsd", "energy")):
    return quality_cells.wanted("images", version, ["random", "full"], [0.1, 0.5], 0, measures)


def computed(planned_cells: pd.DataFrame, value: float, error: str = "") -> pd.DataFrame:
    """Trials as `run_trials` gives them."""
    cost = {"rows": 10, "seconds": 0.123456789, "memory_mb": float("nan"), "measure_seconds": 0.1}
    return planned_cells.assign(value=value, error=error, **cost)[
        ["task", "method", "budget", "seed", "measure", "value", "error", *cost]
    ]


def test_finished_cells_are_read_back_and_nothing_of_them_is_missing(quality_cells, tmp_path):
    planned_cells = planned(quality_cells)
    assert len(planned_cells) == 6  # two budgets of random and one of full, by two measures
    cells = quality_cells.Cells(tmp_path / "cells.csv.gz")
    assert len(cells.missing(planned_cells)) == 6
    cells.add(computed(planned_cells, 0.25), planned_cells)
    reopened = quality_cells.Cells(tmp_path / "cells.csv.gz")
    assert reopened.missing(planned_cells).empty
    stored = reopened.of(planned_cells)
    assert stored["value"].tolist() == [0.25] * 6
    assert stored["seconds"].tolist() == pytest.approx([0.123457] * 6)
    assert not stored["higher_is_better"].any()


def test_a_raised_version_a_failure_and_another_measure_are_missing(quality_cells, tmp_path):
    planned_cells = planned(quality_cells)
    cells = quality_cells.Cells(tmp_path / "cells.csv.gz")
    cells.add(computed(planned_cells, 0.25), planned_cells)
    assert len(cells.missing(planned(quality_cells, version=2))) == 6
    more = cells.missing(planned(quality_cells, measures=("jsd", "energy", "coverage")))
    assert set(more["measure"]) == {"coverage"}
    assert [(list(p.methods), list(p.budgets)) for p in quality_cells.plans(more)] == [
        (["random"], [0.1, 0.5]),
        (["full"], [1.0]),
    ]
    cells.add(computed(planned_cells, float("nan"), "RuntimeError: no"), planned_cells)
    assert len(cells.missing(planned_cells)) == 6


def test_new_cells_replace_those_of_an_older_version(quality_cells, tmp_path):
    cells = quality_cells.Cells(tmp_path / "cells.csv.gz")
    old, new = planned(quality_cells), planned(quality_cells, version=2)
    cells.add(computed(old, 0.25), old)
    cells.add(computed(new, 0.5), new)
    assert len(cells.table) == 6
    assert cells.of(new)["value"].tolist() == [0.5] * 6
    assert cells.of(old).empty


def test_the_same_cells_are_the_same_bytes(quality_cells, tmp_path):
    planned_cells = planned(quality_cells)
    for name, rows in (("a", planned_cells), ("b", planned_cells.iloc[::-1])):
        quality_cells.Cells(tmp_path / name / "cells.csv.gz").add(computed(rows, 0.25), rows)
    first, second = ((tmp_path / name / "cells.csv.gz").read_bytes() for name in ("a", "b"))
    assert first == second


def test_methods_that_lack_the_same_cells_are_planned_together(quality_cells):
    planned_cells = quality_cells.wanted(
        "t", 1, ["random", "nearest", "kl_hash"], [0.1, 0.5], 3, ["jsd"]
    )
    missing = planned_cells[
        ~((planned_cells["method"] == "nearest") & (planned_cells["budget"] == 0.1))
    ]
    plans = {tuple(plan.methods): tuple(plan.budgets) for plan in quality_cells.plans(missing)}
    assert plans == {("random", "kl_hash"): (0.1, 0.5), ("nearest",): (0.5,)}
