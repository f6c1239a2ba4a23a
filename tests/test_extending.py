"""The worked example of each page on extending runs as the page says, on both sides of a run."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from gio_spark import register
from gio_spark.errors import ConfigError
from gio_spark.gio.selection_problem import OBJECTIVES
from gio_spark.settings.load import build
from tests.pipeline import jobs

PAGES = Path(__file__).parent.parent / "docs" / "extending"


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Write the module of a page, and give the settings that the page shows."""

    def write(page: str) -> dict:
        text = (PAGES / f"{page}.md").read_text()
        assert len(text.splitlines()) <= 40
        code = re.search(r"```python\n(.*?)```", text, re.S).group(1)
        (tmp_path / f"my_{page}.py").write_text(code)
        shown = re.search(r"in the configuration:\n\n((?:    .*\n)+)", text).group(1)
        return yaml.safe_load(shown)

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    yield write
    for name in [n for n in sys.modules if n.startswith("my_")]:
        del sys.modules[name]


@pytest.fixture
def place(tmp_path):
    jobs.write(jobs.vector_pool(400), tmp_path / "pool.parquet")
    jobs.write(jobs.vector_target(80), tmp_path / "target.parquet")
    return tmp_path


def test_an_embedder_of_ones_own_embeds_the_run(spark, place, example):
    texts = jobs.text_rows("p", 300, 0, 200, 1)
    jobs.write(texts, place / "texts.parquet")
    jobs.write(jobs.text_rows("t", 60, 0, 50, 2), place / "like.parquet")
    made = jobs.settings(
        place,
        pool=str(place / "texts.parquet"),
        target=str(place / "like.parquet"),
        columns={"vector": None, "source": None, "tokens": None, "text": "text"},
        budget=0.1,
        **example("embedder"),
    )
    curation = jobs.go(made)
    assert curation.summary["embedder"] == ["letter-counts", "1"]
    assert curation.selected.count() == 30
    assert not jobs.go(made).did_work


def test_an_objective_of_ones_own_makes_the_plan(spark, place, example):
    curation = jobs.go(jobs.settings(place, **example("objective")))
    assert curation.summary["objective"] == "even"
    taken = curation.plan["take"][curation.plan["take"] > 0]
    assert taken.max() - taken.min() <= 1 or (taken <= curation.plan["rows"][taken.index]).all()
    assert taken.sum() == 100


def test_a_profile_of_ones_own_is_measured(spark, place, example):
    curation = jobs.go(jobs.settings(place, **example("profile")))
    metrics = jobs.table(place / "ws", "metrics").to_pandas()
    longest = metrics[(metrics["metric"] == "longest") & (metrics["group"] == "selected")]
    assert longest["value"].iloc[0] == max(r["words"] for r in curation.selected.collect())


def test_a_method_of_ones_own_is_compared(spark, place, example):
    from gio_spark.evaluate import evaluate

    shown = example("method")
    shown["evaluate"] |= {"seeds": 1, "budgets": [0.2], "held_out_share": 0.4}
    jobs.write(jobs.vector_target(400), place / "target.parquet")
    evaluation = evaluate(jobs.settings(place, **shown))
    assert set(evaluation.trials["method"]) == {"random", "kl_ratio_t025", "longest"}
    own = evaluation.trials[evaluation.trials["method"] == "longest"]
    assert (own["error"] == "").all()


def test_a_scorer_of_ones_own_judges_the_strategies(spark, place, example):
    jobs.write(jobs.vector_target(160), place / "target.parquet")
    shown = {**example("scorer"), "within_cluster": "density_ratio", "budget": 240}
    jobs.go(jobs.settings(place, **shown), until="select")
    records = jobs.table(place / "ws", "runs").to_pylist()
    (choice,) = [one["detail"] for one in records if one["stage"] == "strategy"]
    assert '"judge":"own score"' in choice.replace(": ", ":")


@pytest.mark.parametrize(
    ("kind", "name", "entry"),
    [
        ("objective", "budgeted_kl", lambda problem: None),
        ("method", "random", lambda dataset, budget, seed: np.arange(budget)),
        ("profile", "text", lambda: None),
        ("embedder", "mine", lambda rows: None),
        ("metric", "mine", lambda: None),
        ("scorer", "mine", 1.0),
    ],
)
def test_names_of_gio_spark_and_wrong_entries_are_refused(kind, name, entry):
    with pytest.raises(ConfigError):
        register(kind, name)(entry)


def test_a_name_of_ones_own_may_be_registered_again():
    def first(problem):
        return None

    def second(problem):
        return None

    try:
        register("objective", "twice")(first)
        register("objective", "twice")(second)
        assert OBJECTIVES.get("twice") is second
    finally:
        del OBJECTIVES.entries["twice"]


def test_a_module_that_cannot_be_imported_is_one_clear_error(place):
    made = jobs.settings(place, modules=["no_such_module"])
    with pytest.raises(ConfigError, match="modules: cannot import 'no_such_module'"):
        jobs.go(made)


def test_earlier_names_of_settings_are_taken_with_a_warning(place):
    data = {"pool": "a", "target": "b", "gime": {"modules": ["mine"]}}
    with pytest.warns(FutureWarning, match="gime.modules is called modules now"):
        assert build(data).modules == ("mine",)
    with pytest.warns(FutureWarning), pytest.raises(ConfigError, match="two values"):
        build({**data, "modules": ["other"]})
