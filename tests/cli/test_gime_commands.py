"""metrics, sensitivity and gate from the command line, and the plan that thresholds hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from gio_spark.cli import app
from gio_spark.cli.options import GATE_FAILED
from gio_spark.gime import METRICS
from tests.cli.conftest import project
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded

QUICK = {"screen": 20, "levels": 5, "seeds": 2, "sample": 400}


def invoke(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


# ---- metrics -----------------------------------------------------------------------------------


@pytest.fixture
def documents(folder):
    random = np.random.default_rng(0)
    start = np.datetime64("2024-01-30", "us")
    days = random.integers(0, 60, 300).astype("timedelta64[D]")
    table = pa.table(
        {
            "key": [f"r{i}" for i in range(300)],
            "body": [" ".join(["word"] * int(n)) for n in random.integers(1, 20, 300)],
            "site": random.choice(["news", "forum"], 300),
            "when": pa.array(start + days),
            "emb": pa.array(list(random.normal(size=(300, 6)).astype(np.float32))),
        }
    )
    jobs.write(table, folder / "docs.parquet")
    return folder / "docs.parquet", table


ROLES = ("--columns", "id=key,text=body,vector=emb,event_time=when")


def test_any_table_is_measured_by_any_grouping(spark, documents, folder):
    place, table = documents
    done = invoke(
        "metrics",
        place,
        "--by",
        "site",
        *ROLES,
        "--target",
        place,
        "--clusters",
        8,
        "--output",
        folder / "page",
        "--forms",
        "--engine",
        "embedded",
    )
    assert done.exit_code == 0, done.stderr
    for metric in METRICS:
        assert metric.replace("_", " ") in done.stdout, metric
    words = sum(
        len(b.split())
        for b, s in zip(table["body"].to_pylist(), table["site"].to_pylist(), strict=True)
        if s == "news"
    )
    assert f"{words:,}" in done.stdout
    assert "Form: literal" in done.stdout
    page = (folder / "page" / "metrics.html").read_text()
    # Neither ingest times nor a quality are given: no delay and no distortion.
    assert "<script" not in page and page.count("<svg") == 9
    assert "No delay: no row has both event and ingest time" in done.stdout
    assert (folder / "page" / "metric_scope.png").exists()
    by_month = invoke(
        "metrics",
        place,
        "--by",
        "month",
        *ROLES,
        "--clusters",
        0,
        "--output",
        folder / "page",
        "--engine",
        "embedded",
    )
    assert "2024-01" in by_month.stdout and "2024-03" in by_month.stdout


def test_states_and_values_are_kept_as_delta_tables_and_found_again(spark, documents, folder):
    place, _ = documents
    words = (
        "metrics",
        place,
        "--by",
        "site",
        *ROLES,
        "--workspace",
        folder / "ws",
        "--output",
        folder / "page",
        "--engine",
        "embedded",
    )
    first, again = invoke(*words), invoke(*words)
    assert first.exit_code == 0, first.stderr
    assert "Nothing was left to do" in again.stdout
    assert first.stdout.split("metrics: ")[0] in again.stdout
    states = jobs.table(folder / "ws", "metric_states")
    assert {"group", "partition", "metric", "version", "bytes"} <= set(states.column_names)
    assert set(states["group"].to_pylist()) == {"news", "forum"}
    values = jobs.table(folder / "ws", "metrics").to_pandas()
    assert set(METRICS) <= set(values["metric"])


def test_a_profile_of_tables_and_a_csv(spark, folder):
    rows = "\n".join(f"{i % 7},{'ab'[i % 2]},{i * 0.5}" for i in range(60))
    (folder / "t.csv").write_text(f"user,kind,amount\n{rows}\n")
    done = invoke(
        "metrics",
        folder / "t.csv",
        "--profile",
        "tabular",
        "--columns",
        "user=user,numeric=amount,categorical=kind",
        "--output",
        folder / "page",
        "--engine",
        "embedded",
    )
    assert done.exit_code == 0, done.stderr
    assert re.search(r"rows\s+rows\s+exact\s+60", done.stdout)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--by", "cite"), "Cannot group by 'cite'"),
        (("--columns", "text=bdy"), "did you mean 'body'"),
        (("--columns", "txet=body"), "no role 'txet': did you mean 'text'"),
        (("--columns", "tokens=body"), "must be a number"),
        (("--columns", "body"), "write role=column"),
        (("--columns", "text=body,text=site"), "twice"),
        (("--profile", "texts"), "No metric profile is called 'texts'"),
        (("gime.tua=1",), "gime.tua"),
        (("modules=[no_such_module]",), "cannot import 'no_such_module'"),
        (("--target", "/no/such/place"), "Nothing found at /no/such/place"),
    ],
)
def test_what_cannot_be_measured_is_one_clear_message(spark, documents, folder, words, message):
    place, _ = documents
    done = invoke("metrics", place, *words, "--output", folder / "page", "--engine", "embedded")
    assert done.exit_code == 2, (done.stdout, done.stderr)
    assert message in done.stderr and "Traceback" not in done.stderr


def test_metrics_of_a_run_by_source(finished):
    made, _, _ = finished
    done = made("metrics", "--by", "source")
    assert done.exit_code == 0, done.stderr
    assert "pool" in done.stdout and "selected" in done.stdout
    (page,) = re.findall(r"page: (\S+)", done.stdout)
    assert "selected | site-0" in Path(page).with_suffix(".csv").read_text()
    refused = made("metrics", "--target", "x")
    assert refused.exit_code == 2 and "--target is for a table" in refused.stderr


# ---- sensitivity, thresholds, gate -------------------------------------------------------------


def labelled(table: pa.Table) -> pa.Table:
    first = np.array(table["vector"].to_pylist())[:, 0]
    return table.append_column("kind", pa.array(np.where(first > 0, "yes", "no")))


@pytest.fixture(scope="module")
def learnt(spark, tmp_path_factory):
    """A project with labels, and what `sensitivity` said, twice."""
    made = project(
        tmp_path_factory.mktemp("gime"),
        columns={
            "id": "id",
            "vector": "vector",
            "source": "site",
            "label": "kind",
            "tokens": "words",
        },
        budget=60,
        gime=QUICK,
        tracking={"enabled": True, "experiment": "gime"},
    )
    jobs.write(labelled(jobs.vector_pool(400)), made.folder / "pool.parquet")
    target = jobs.vector_rows("t", 160, np.arange(160) % 2, seed=2)
    jobs.write(labelled(target), made.folder / "target.parquet")
    return made, made("sensitivity"), made("sensitivity")


def test_sensitivity_tells_what_matters_and_is_not_run_twice(learnt):
    made, first, again = learnt
    assert first.exit_code == 0, first.stderr
    for word in (
        "Sensitivity",
        "Thresholds for 95.0 %",
        "Efficiency",
        "models trained",
        "processor time",
        "gime.level=0.95",
    ):
        assert word in first.stdout, word
    assert "Nothing was left to do" in again.stdout
    # A budget of about the same size rests on the same runs, one of another size does not.
    assert "Nothing was left to do" in made("sensitivity", "budget=75").stdout
    table = jobs.table(made.folder / "ws", "sensitivity").to_pandas()
    assert set(table["class"]) <= {"high", "moderate", "low"}
    assert {"mismatch", "scope", "variety"} <= set(table["metric"])
    assert (table["low"] <= table["change"]).all() and (table["change"] <= table["high"]).all()
    runs = jobs.table(made.folder / "ws", "sensitivity_runs").to_pandas()
    assert (runs["part"] == "screen").sum() == QUICK["screen"]
    assert set(runs["part"]) == {"screen", "sweep", "curve"}
    (page,) = re.findall(r"page: (\S+)", first.stdout)
    assert "<script" not in Path(page).read_text()


def test_the_page_its_plots_and_the_cost_are_in_the_tracked_run(learnt):
    from mlflow.tracking import MlflowClient

    made, _, _ = learnt
    (store,) = (made.folder / "ws" / "tracking").rglob("*.db")
    client = MlflowClient(tracking_uri=f"sqlite:///{store}")
    experiment = client.get_experiment_by_name("gime")
    for one in client.search_runs([experiment.experiment_id]):
        names = {a.path for a in client.list_artifacts(one.info.run_id, "sensitivity")}
        assert "sensitivity/sensitivity.html" in names
        assert any(n.endswith(".png") for n in names)
        spent = one.data.metrics
        assert spent["sensitivity/training_seconds"] > spent["sensitivity/full_training_seconds"]
        assert spent["sensitivity/models"] >= QUICK["screen"]


def test_without_labels_sensitivity_says_what_to_do(make):
    done = make()("sensitivity")
    assert done.exit_code == 2
    assert "columns.label" in done.stderr and "gime.scorer" in done.stderr


def _random_labels(table: pa.Table, seed: int) -> pa.Table:
    kinds = np.random.default_rng(seed).choice(["yes", "no"], table.num_rows)
    return table.append_column("kind", pa.array(kinds))


def _other_labels(table: pa.Table) -> pa.Table:
    kinds = ["Yes", "No"] * (table.num_rows // 2)
    return table.append_column("kind", pa.array(kinds))


@pytest.mark.parametrize(
    ("target_labels", "message"),
    [
        (_other_labels, "No label of the held-out rows occurs in the pool"),
        (lambda table: _random_labels(table, 2), "The proxy model learns nothing"),
    ],
)
def test_labels_that_cannot_judge_give_no_verdict(make, target_labels, message):
    labels = {"id": "id", "vector": "vector", "source": "site", "label": "kind"}
    made = make(columns=labels, gime=QUICK)
    jobs.write(_random_labels(jobs.vector_pool(300), 1), made.folder / "pool.parquet")
    target = jobs.vector_rows("t", 160, np.arange(160) % 2, seed=2)
    jobs.write(target_labels(target), made.folder / "target.parquet")
    for command, override in (("sensitivity", []), ("run", ["gime.level=0.9"])):
        done = made(command, *override)
        assert done.exit_code == GATE_FAILED, done.stdout + done.stderr
        assert "no verdict: " + message in done.stderr
    # Thresholds by hand can be judged; the gate says why it shows no scores of models.
    hand = 'gime.thresholds={"scope": 0.01}'
    assert made("run", hand).exit_code == 0
    gate = made("gate", hand)
    assert gate.exit_code == 0 and message in gate.stdout


def test_automatic_thresholds_hold_the_plan_and_the_gate_judges_it(learnt):
    made, _, _ = learnt
    level = "gime.level=0.9"
    done = made("run", level)
    assert done.exit_code == 0, done.stderr
    assert re.search(r"gate\s+(passed|FAILED|no threshold set)", done.stdout)
    passed = "gate" in done.stdout and "FAILED" not in done.stdout
    stored = made("gate", level, "--stored")
    judged = made("gate", level)
    wanted = 0 if passed else GATE_FAILED
    assert stored.exit_code == wanted, stored.stdout + stored.stderr
    assert judged.exit_code == wanted, judged.stdout + judged.stderr
    for way in ("random", "stratified", "GIME", "GIO", "both"):
        assert way in judged.stdout
    (page,) = re.findall(r"page: (\S+)", judged.stdout)
    assert "Gate:" in Path(page).read_text()
    # Pool and target have labels: each way's proxy score stands in the same table.
    assert re.search(r"proxy score\s+more", judged.stdout)
    assert "Proxy score of each way" in judged.stdout and "±" in judged.stdout
    scores = pd.read_csv(Path(page).with_name("scores.csv")).set_index("way")
    assert set(scores.index) == {"pool", "random", "stratified", "gime", "gio", "both"}
    assert scores.loc["pool", "rows"] == 400
    assert set(scores.drop("pool")["rows"]) == {60}
    assert set(scores.drop(["pool", "both"])["draws"]) == {QUICK["seeds"]}
    assert scores["score"].between(0.5, 1).all()


def test_a_level_without_a_metric_of_high_sensitivity_changes_nothing_and_says_so(make):
    labels = {"id": "id", "vector": "vector", "source": "site", "label": "kind"}
    made = make(columns=labels, gime=QUICK, budget=60)
    # A label that every subset learns without error: no metric can matter.
    for name, rows in (("pool", jobs.vector_pool(300)), ("target", jobs.vector_target(80))):
        kinds = np.arange(rows.num_rows) % 2
        vectors = np.stack(rows["vector"].to_numpy())
        vectors[:, 0] = 40.0 * kinds - 20.0
        rows = rows.set_column(
            rows.schema.get_field_index("vector"), "vector",
            pa.array(list(vectors), pa.list_(pa.float32())),
        ).append_column("kind", pa.array(np.where(kinds, "yes", "no")))  # fmt: skip
        jobs.write(rows, made.folder / f"{name}.parquet")
    plain = made("run")
    assert plain.exit_code == 0, plain.stderr
    before = jobs.table(made.folder / "ws", "selected").sort_by("gio_id")
    done = made("run", "gime.level=0.95")
    assert done.exit_code == 0, done.stderr
    after = jobs.table(made.folder / "ws", "selected").sort_by("gio_id")
    assert after["gio_run"][0] != before["gio_run"][0]
    assert after.drop_columns(["gio_run"]).equals(before.drop_columns(["gio_run"]))
    text = "the plan is the one without gime.level"
    assert "warning, gime level changes nothing" in done.stdout and text in " ".join(
        done.stdout.split()
    )
    (page,) = re.findall(r"report: (\S+)", done.stdout)
    assert text in Path(page).read_text()
    records = jobs.table(made.folder / "ws", "runs").to_pylist()
    runs = [json.loads(r["detail"]) for r in records if r["stage"] == "run"]
    warned = [any("gime level" in name for name, _, _ in one["cautions"]) for one in runs]
    assert sorted(warned) == [False, True]
    # A second start says it again.
    assert text in " ".join(made("run", "gime.level=0.95").stdout.split())


def test_thresholds_by_hand_that_cannot_be_met_fail_the_gate_with_the_best_that_can(make):
    made = make(gime={**QUICK, "thresholds": {"scope": 1.0, "mismatch": 1.0}, "moves": 1})
    done = made("run")
    assert done.exit_code == GATE_FAILED, done.stderr
    assert "not published as run: the gate fails" in done.stdout
    gate = made("gate")
    assert gate.exit_code == GATE_FAILED, gate.stdout + gate.stderr
    assert "is asked for; the best seen" in gate.stdout
    assert made("gate", "--stored").exit_code == GATE_FAILED
    unknown = made("gate", "--run", "run-of-nobody")
    assert unknown.exit_code == 2 and "No finished run 'run-of-nobody'" in unknown.stderr


def test_thresholds_that_do_not_bind_change_no_row(make):
    made = make()
    assert made("run").exit_code == 0
    free = jobs.table(made.folder / "ws", "selected").to_pandas()
    assert made("run", "gime.thresholds={mismatch: 0.0}", "gime.screen=20").exit_code == 0
    bound = jobs.table(made.folder / "ws", "selected").to_pandas()
    assert set(free["gio_run"]) != set(bound["gio_run"])
    assert set(free["gio_id"]) == set(bound["gio_id"])


@pytest.mark.parametrize("budget", ["60", "1500 tokens"])
def test_thresholds_move_quota_within_caps_and_budgets_in_tokens(make, budget):
    made = make(
        columns={"id": "id", "vector": "vector", "source": "site", "tokens": "words"},
        gime={**QUICK, "thresholds": {"variety": 0.9}},
        select={"source_caps": {"site-0": 0.4}, "source_floors": {"site-1": 0.2}, "replay": 0.2},
    )
    done = made("run", f"budget={budget}")
    assert done.exit_code == 0, done.stderr
    rows = jobs.table(made.folder / "ws", "selected").to_pandas()
    plan = jobs.table(made.folder / "ws", "plan").to_pandas()
    assert plan["take"].sum() == len(rows)
    facts = next(json.loads(r["detail"]) for r in jobs.table(made.folder / "ws", "runs").to_pylist()
                 if r["stage"] == "plan")  # fmt: skip
    gate = facts["gate"]
    assert gate["moved"] > 0 and gate["rows_moved"] > 0
    weight = rows["words"] if "tokens" in budget else rows["words"] * 0 + 1
    amount = weight.groupby(rows["site"]).sum()
    whole = 1500 if "tokens" in budget else 60
    # In tokens a plan knows the mean of a cell's rows alone.
    slack = 0 if whole == 60 else 150
    assert amount["site-0"] <= 0.4 * whole + slack
    assert amount["site-1"] >= 0.2 * whole - slack
    assert abs(amount.sum() - whole) <= slack


def test_a_gate_without_thresholds_is_refused(finished):
    made, _, _ = finished
    done = made("gate")
    assert done.exit_code == 2
    assert "holds no thresholds" in done.stderr and "gime.level" in done.stderr


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("gime.thresholds={scop: 0.5}", "No threshold can be set for 'scop'"),
        ("gime.thresholds={scope: 1.5}", "a share from 0 to 1"),
        ("gime.thresholds={distortion: 0.5}", "it has no value here"),
        ("gime.level=0.9 gime.accepted_loss=0.1", "say the same"),
        ("gime.scorer=nowhere", "gime.scorer"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(make, override, message):
    done = make()("run", *re.split(r" (?=gime)", override))
    assert done.exit_code == 2, done.stdout
    assert message in done.stderr and "Traceback" not in done.stderr


def test_a_verdict_is_recorded_with_the_run(learnt):
    made, _, _ = learnt
    records = jobs.table(made.folder / "ws", "runs").to_pylist()
    runs = [json.loads(r["detail"]) for r in records if r["stage"] == "run"]
    judged = [r["gate"] for r in runs if r.get("gate")]
    assert judged and all({"passed", "why", "checks"} <= set(g) for g in judged)
