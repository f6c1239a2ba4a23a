from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gio_spark.report.evaluation import render_evaluation

from .samples import a_bake_off
from .test_render import Page


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    page = render_evaluation(
        a_bake_off(), folder, facts={"pool": "60,000 rows"}, settings={"token": "hunter2"}
    )
    text = page.read_text(encoding="utf-8")
    return folder, text, Page(text)


def test_the_page_is_whole_in_itself_and_has_plots_and_one_score_table(drawn):
    folder, text, seen = drawn
    assert all(load.startswith(("data:", "#")) for load in seen.loads)
    assert "script" not in seen.tags
    assert "http" not in text.replace("http-equiv", "")
    assert "hunter2" not in text
    assert len(text) < 2_000_000
    names = {p.stem for p in folder.glob("*.png")}
    assert names == {"ranks", "cost_seconds", "cost_memory_mb"} | {
        f"scores_{i:02d}" for i in range(1, 7)
    }
    assert seen.tags.count("svg") == len(names)
    assert len(seen.ids) == len(set(seen.ids))


def test_the_first_sentences_name_the_best_and_what_it_beats(drawn):
    _, _, seen = drawn
    assert "18 methods were compared on 3 tasks, at 6 budgets, with 5 seeds." in seen.text
    assert "Best by mean rank is budgeted KL" in seen.text
    assert "Against random it is better in" in seen.text


def test_a_method_that_fails_is_a_row_that_says_so(drawn):
    _, text, seen = drawn
    assert "MissingExtraError: <b>needs</b> data-selection" in seen.text
    assert "<b>needs" not in text


def test_all_cells_stand_beside_the_page(drawn):
    folder, _, _ = drawn
    assert len(pd.read_csv(folder / "evaluation.csv")) == len(a_bake_off())


def test_one_cell_and_nothing_but_failures_still_make_a_page(tmp_path):
    table = a_bake_off().head(1)
    assert render_evaluation(table, tmp_path / "one").exists()
    failed = a_bake_off().assign(value=np.nan, error="boom").head(40)
    seen = Page(render_evaluation(failed, tmp_path / "none").read_text(encoding="utf-8"))
    assert "boom" in seen.text
