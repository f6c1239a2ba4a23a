"""The quality benchmark's file of finished cells: what is there is not computed again."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def kept(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import quality_cells

    return quality_cells


def asked(kept, *, version: int = 1, measures=("jsd", "energy")):
    return kept.wanted("images", version, ["random", "full"], [0.1, 0.5], 0, measures)


def computed(these: pd.DataFrame, value: float, error: str = "") -> pd.DataFrame:
    """Return cells as `run_cells` gives them."""
    cost = {"rows": 10, "seconds": 0.123456789, "memory_mb": float("nan"), "measure_seconds": 0.1}
    return these.assign(value=value, error=error, **cost)[
        ["task", "method", "budget", "seed", "measure", "value", "error", *cost]
    ]


def test_finished_cells_are_read_back_and_nothing_of_them_is_missing(kept, tmp_path):
    these = asked(kept)
    assert len(these) == 6  # two budgets of random and one of full, by two measures
    cells = kept.Cells(tmp_path / "cells.csv.gz")
    assert len(cells.missing(these)) == 6
    cells.add(computed(these, 0.25), these)
    again = kept.Cells(tmp_path / "cells.csv.gz")
    assert again.missing(these).empty
    found = again.of(these)
    assert found["value"].tolist() == [0.25] * 6
    assert found["seconds"].tolist() == pytest.approx([0.123457] * 6)
    assert not found["higher_is_better"].any()


def test_a_raised_version_a_failure_and_another_measure_are_missing(kept, tmp_path):
    these = asked(kept)
    cells = kept.Cells(tmp_path / "cells.csv.gz")
    cells.add(computed(these, 0.25), these)
    assert len(cells.missing(asked(kept, version=2))) == 6
    more = cells.missing(asked(kept, measures=("jsd", "energy", "coverage")))
    assert set(more["measure"]) == {"coverage"}
    assert [(list(p.methods), list(p.budgets)) for p in kept.plans(more)] == [
        (["random"], [0.1, 0.5]),
        (["full"], [1.0]),
    ]
    cells.add(computed(these, float("nan"), "RuntimeError: no"), these)
    assert len(cells.missing(these)) == 6


def test_new_cells_replace_those_of_an_older_version(kept, tmp_path):
    cells = kept.Cells(tmp_path / "cells.csv.gz")
    old, new = asked(kept), asked(kept, version=2)
    cells.add(computed(old, 0.25), old)
    cells.add(computed(new, 0.5), new)
    assert len(cells.table) == 6
    assert cells.of(new)["value"].tolist() == [0.5] * 6
    assert cells.of(old).empty


def test_the_same_cells_are_the_same_bytes(kept, tmp_path):
    these = asked(kept)
    for name, rows in (("a", these), ("b", these.iloc[::-1])):
        kept.Cells(tmp_path / name / "cells.csv.gz").add(computed(rows, 0.25), rows)
    first, second = ((tmp_path / name / "cells.csv.gz").read_bytes() for name in ("a", "b"))
    assert first == second


def test_methods_that_lack_the_same_cells_are_planned_together(kept):
    these = kept.wanted("t", 1, ["random", "nearest", "kl_hash"], [0.1, 0.5], 3, ["jsd"])
    missing = these[~((these["method"] == "nearest") & (these["budget"] == 0.1))]
    found = {tuple(plan.methods): tuple(plan.budgets) for plan in kept.plans(missing)}
    assert found == {("random", "kl_hash"): (0.1, 0.5), ("nearest",): (0.5,)}
