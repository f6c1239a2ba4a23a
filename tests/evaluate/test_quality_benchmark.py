"""The quality benchmark: what is computed here, what is only shown, and what the tables say."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TEXTS = np.array([f"{'word ' * (1 + i % 7)}{i}" for i in range(50)], dtype=object)


@pytest.fixture(autouse=True)
def computed(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def data(tmp_path):
    """A text pool of 50 rows."""
    (tmp_path / "text_pool").mkdir()
    rows = pd.DataFrame({"domain": "a", "text": TEXTS})
    rows.to_csv(tmp_path / "text_pool" / "pool.tsv.gz", sep="\t", index=False)
    return tmp_path


def arguments(**changes):
    usual = {"tasks": "", "methods": "random,oracle", "budgets": "0.1,0.5", "seeds": 1,
             "vectors": "", "cnn": False}  # fmt: skip
    return argparse.Namespace(**{**usual, **changes})


class Recorder:
    """A bench that notes what it is told to fill; its cells are real ones."""

    def __init__(self, path, stop: float | None = 1e12):
        from quality_cells import Cells

        self.cells, self.stop, self.asked = Cells(path), stop, []

    def fill(self, task, label, seed, options, planned):
        missing = self.cells.missing(planned)
        if not missing.empty:
            self.asked.append((label, options, set(missing["measure"])))


def cells_of(task, measures, seeds, *, methods=("random", "oracle"), budgets=(0.1, 0.5)):
    """Cells in which the oracle is ahead."""
    from quality_cells import wanted

    rng = np.random.default_rng(0)
    planned = [wanted(task.name, task.version, methods, budgets, seed, measures)
             for seed in range(seeds)]  # fmt: skip
    planned = pd.concat(planned, ignore_index=True)
    value = 0.5 + 0.2 * (planned["method"] == "oracle") + 0.01 * rng.random(len(planned))
    return planned, planned.drop(
        columns=["task_version", "method_version", "measure_version"]
    ).assign(rows=10, value=value, seconds=0.1, memory_mb=1.0, measure_seconds=0.1, error="")


def test_tasks_without_vectors_are_left_out_but_their_cells_are_shown(tmp_path, capsys):
    import bench_quality
    from quality_tasks import all_tasks

    known = all_tasks()
    task = known["text_b_minilm"]
    bench = Recorder(tmp_path / "cells.csv.gz")
    planned, computed = cells_of(task, task.measures, 1)
    bench.cells.add(computed, planned)
    options = arguments(tasks="text_b_minilm,text_c_minilm,text_c_static")
    table = bench_quality.fill(options, bench, known)
    assert set(table["task"]) == {"text_b_minilm"} and len(table) == len(planned)
    assert [label for label, _, _ in bench.asked] == ["text_c_static"]
    output = capsys.readouterr().out.strip().splitlines()
    assert output == ["not computed without --vectors: text_b_minilm, text_c_minilm"]
    shown_again = bench_quality.fill(options, Recorder(tmp_path / "cells.csv.gz", None), known)
    assert shown_again["measure"].tolist() == table["measure"].tolist()
    assert capsys.readouterr().out == ""


def test_vectors_are_an_option_of_the_tasks_that_need_them_alone(tmp_path):
    import bench_quality
    from quality_tasks import Options, all_tasks

    bench = Recorder(tmp_path / "cells.csv.gz")
    bench_quality.fill(arguments(tasks="text_a_minilm,adult", vectors="v.npy"), bench, all_tasks())
    assert [(label, options) for label, options, _ in bench.asked] == [
        ("text_a_minilm", Options(vectors="v.npy")),
        ("adult", Options()),
    ]


def test_the_cnn_alone_is_computed_where_all_else_is_there_on_more_pixels(tmp_path):
    import bench_quality
    from quality_tasks import Options, all_tasks

    known = all_tasks()
    task = known["images_faint"]
    bench = Recorder(tmp_path / "cells.csv.gz")
    bench_quality.fill(arguments(tasks="images_faint", cnn=True), bench, known)
    assert bench.asked == [
        ("images_faint", Options(), set(task.measures)),
        ("images_faint", Options(pixels=14), {"proxy_cnn"}),
    ]
    planned, computed = cells_of(task, task.measures, 1)
    bench.cells.add(computed, planned)
    bench.asked.clear()
    bench_quality.fill(arguments(tasks="images_faint", cnn=True), bench, known)
    assert bench.asked == [("images_faint", Options(pixels=14), {"proxy_cnn"})]
    bench.asked.clear()
    bench_quality.fill(arguments(tasks="images_faint"), bench, known)
    assert bench.asked == []


def test_other_vectors_under_the_same_name_make_another_dataset(tmp_path):
    import bench_quality
    from quality_tasks import Options, all_tasks

    file = tmp_path / "v.npy"
    task, places = all_tasks()["text_a_minilm"], []
    for content in (0.0, 1.0):
        np.save(file, np.full((2, 2), content))
        bench_quality._content.cache_clear()
        places.append(bench_quality.place_of(task, 0, Options(vectors=str(file)), tmp_path))
    assert places[0] != places[1]
    assert all(place.parent == tmp_path / "datasets2" for place in places)


def test_vectors_that_do_not_fit_the_texts_are_refused_in_one_line(data):
    from quality_tasks import kept_vectors, pool_texts

    assert pool_texts(data).tolist() == TEXTS.tolist()
    file = str(data / "v.npy")
    with pytest.raises(SystemExit, match="No such file"):
        kept_vectors(data, file)
    np.save(file, np.zeros((49, 8), np.float16))
    with pytest.raises(SystemExit, match=r"its shape is \(49, 8\), but there are 50 texts"):
        kept_vectors(data, file)
    np.save(file, np.zeros((50, 8), np.float16))
    assert kept_vectors(data, file).shape == (50, 8)


def test_scores_of_the_cnn_are_a_table_of_their_own_only_where_there_are_some(tmp_path):
    import quality_tables
    from quality_cells import Cells
    from quality_tasks import all_tasks

    known = all_tasks()
    task = known["images_faint"]
    cells = Cells(tmp_path / "cells.csv.gz")
    planned, computed = cells_of(task, task.measures, 3)
    cells.add(computed, planned)
    text, _ = quality_tables.summarise(cells.of(planned), known, "random")
    assert "### images_faint\n" in text and "convolutional" not in text
    assert "higher is better; 3 seeds;" in text
    cnn_cells, computed = cells_of(task, task.extra, 2, budgets=(0.1,))
    cells.add(computed, cnn_cells)
    single_method, computed = cells_of(task, task.extra, 1, methods=["kl_hash"], budgets=(0.1,))
    cells.add(computed, single_method)
    all_cells = pd.concat(
        [cells.of(t) for t in (planned, cnn_cells, single_method)], ignore_index=True
    )
    text, results = quality_tables.summarise(all_cells, known, "random")
    part = text.split("### images_faint: small convolutional network\n")[1].split("###")[0]
    assert "1 to 2 seeds" in part and "| method | 10 % | AUC |" in part
    assert "higher is better; 3 seeds;" in text
    assert results["cells"]["images_faint"]["proxy_cnn"]["oracle"]["0.1"][2] == 2


def test_a_mean_is_over_a_texts_own_tokens_and_has_length_one():
    from minilm_vectors import pooled

    hidden = np.array([[[3.0, 0.0], [0.0, 4.0], [9.0, 9.0]]], np.float32)
    assert pooled(hidden, np.array([[1, 1, 0]])) == pytest.approx(np.array([[0.6, 0.8]]))
    assert pooled(hidden, np.array([[1, 0, 0]])) == pytest.approx(np.array([[1.0, 0.0]]))


def test_a_run_that_was_stopped_goes_on_with_the_same_batches():
    from minilm_vectors import fill

    texts = TEXTS.tolist()

    def run(vectors, batches):
        batches_done = []

        def encode(some):
            if len(batches_done) == batches:
                raise KeyboardInterrupt
            batches_done.append(some)
            rows = np.stack([[len(t), 1 + texts.index(t)] for t in some]).astype(np.float32)
            return rows / np.linalg.norm(rows, axis=1, keepdims=True)

        if batches is None:
            assert fill(texts, encode, vectors, batch=8) == sum(map(len, batches_done))
        else:
            with pytest.raises(KeyboardInterrupt):
                fill(texts, encode, vectors, batch=8)
        return batches_done

    complete, stopped = np.zeros((50, 2), np.float16), np.zeros((50, 2), np.float16)
    batches = run(complete, None)
    assert len(batches) == 7 and len(batches[0][0]) == max(map(len, texts))
    assert run(stopped, 3) == batches[:3]
    stopped[texts.index(batches[1][4])] = 0  # not written whole: its batch is made again
    assert run(stopped, 2) == [batches[1], batches[3]]
    assert run(stopped, None) == batches[4:]
    assert np.array_equal(complete, stopped)
    assert run(complete, None) == []


def test_the_page_has_the_table_of_the_stored_choices():
    import bench_strategy

    figures = bench_strategy.read_figures()
    table = bench_strategy.table(bench_strategy.headroom(figures))
    assert table in bench_strategy.DOCS.read_text(encoding="utf-8")


def test_the_cells_of_auto_are_those_of_the_chosen_strategies():
    from strategy_figures import cells_of_auto, choices_of

    lines = [
        ("t", 0, 0.1, "kl_ratio_t025", 0.0, 0.0, 0.1, 0.01, 9.0),
        ("t", 0, 0.1, "kl_hash", 0.05, 0.04, 0.15, 0.04, None),
        ("t", 0, 0.1, "random", -0.1, 0.01, 0.0, 0.0, None),
        ("t", 1, 0.1, "kl_ratio_t025", None, None, None, None, 2.0),
    ]
    names = ["task", "seed", "budget", "candidate", "gain", "gain_error", "over_random",
             "over_random_error", "core_seconds"]  # fmt: skip
    figures = pd.DataFrame(lines, columns=names)
    assert choices_of(figures)["chosen"].tolist() == ["kl_ratio_t025"] * 2
    assert choices_of(figures, 0.8)["chosen"].tolist() == ["kl_hash", "kl_ratio_t025"]
    assert choices_of(figures)["core_seconds"].tolist() == [9.0, 2.0]
    cells = pd.DataFrame(
        [("t", seed, 0.1, method, 10.0 * seed + number, 1.0)
         for seed in (0, 1) for number, method in enumerate(("kl_hash", "kl_ratio_t025"))],
        columns=["task", "seed", "budget", "method", "value", "seconds"],
    )  # fmt: skip
    auto = cells_of_auto(cells, figures)
    assert auto["method"].tolist() == ["auto", "auto"]
    assert auto["value"].tolist() == [1.0, 11.0] and auto["seconds"].tolist() == [10.0, 3.0]
    assert cells_of_auto(cells, figures.iloc[:0]).empty
