from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gio_spark.evaluate.compare_methods import DEFAULT
from gio_spark.report.evaluation_page import render_evaluation
from gio_spark.settings.explode import ExplodeSettings
from gio_spark.settings.select import SelectSettings
from gio_spark.strategy import methods

from .sample_reports import bake_off_trials
from .test_html_page import Page


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    page = render_evaluation(
        bake_off_trials(), folder, facts={"pool": "60,000 rows"}, settings={"token": "hunter2"},
        descriptions={"DSIR": "Draw rows by weights on n-grams."}, default="k-NN KL",
    )  # fmt: skip
    text = page.read_text(encoding="utf-8")
    return folder, text, Page(text)


def test_the_page_is_whole_in_itself_and_has_plots_and_one_score_table(rendered):
    folder, text, page = rendered
    assert all(load.startswith(("data:", "#")) for load in page.loads)
    assert "script" not in page.tags
    assert "http" not in text.replace("http-equiv", "")
    assert "hunter2" not in text
    assert len(text) < 2_000_000
    names = {p.stem for p in folder.glob("*.png")}
    assert names == {"ranks", "cost_seconds", "cost_memory_mb"} | {
        f"scores_{i:02d}" for i in range(1, 7)
    }
    assert page.tags.count("svg") == len(names)
    assert len(page.ids) == len(set(page.ids))


def test_the_first_sentences_name_the_best_and_what_it_beats(rendered):
    _, _, page = rendered
    assert "18 methods were compared on 3 tasks, at 6 budgets, with 5 seeds." in page.text
    assert "Best by mean rank is budgeted KL" in page.text
    assert "Against random it is better in" in page.text


def test_a_method_that_fails_is_a_row_that_says_so(rendered):
    _, text, page = rendered
    assert "MissingExtraError: <b>needs</b> data-selection" in page.text
    assert "<b>needs" not in text


def test_all_cells_stand_beside_the_page(rendered):
    folder, _, _ = rendered
    assert len(pd.read_csv(folder / "evaluation.csv")) == len(bake_off_trials())


def test_methods_are_described_and_the_default_is_marked(rendered):
    _, text, _ = rendered
    assert "<td>k-NN KL (default)</td>" in text
    assert "k-NN KL is what gio-spark run does by default." in text
    assert "<td>DSIR</td><td>Draw rows by weights on n-grams.</td>" in text


def test_the_default_is_the_method_of_the_default_settings():
    assert DEFAULT in methods.methods()
    explode, select = ExplodeSettings(), SelectSettings()
    assert (select.objective, explode.within_cluster) == ("budgeted_kl", "density_ratio")
    assert (explode.estimator, explode.temperature) == ("classifier", 0.25)
    assert DEFAULT == "kl_ratio_t025"


def test_one_cell_and_nothing_but_failures_still_make_a_page(tmp_path):
    table = bake_off_trials().head(1)
    assert render_evaluation(table, tmp_path / "one").exists()
    failed = bake_off_trials().assign(value=np.nan, error="boom").head(40)
    page = Page(render_evaluation(failed, tmp_path / "none").read_text(encoding="utf-8"))
    assert "boom" in page.text
