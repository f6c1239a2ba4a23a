"""One run over several kinds of data: a profile for each source, one gate."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from gio_spark.cli import app
from gio_spark.cli.options import GATE_FAILED
from tests.cli.conftest import project
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded

QUICK = {"screen": 20, "levels": 5, "seeds": 2, "sample": 400}
PROFILES = {"texts": "text", "orders": "tabular", "sensors": "spatiotemporal"}
COLUMNS = {
    "id": "id", "vector": "vector", "source": "kind", "tokens": "words", "numeric": ["amount"],
    "event_time": "at",
}  # fmt: skip


def mixed(name: str, rows: int, seed: int, blobs: np.ndarray | int) -> pa.Table:
    """Texts, orders and sensors in turn; each row has what its kind has, and nulls elsewhere."""
    table = jobs.vector_rows(name, rows, blobs, seed=seed)
    random = np.random.default_rng(seed)
    kind = np.array(list(PROFILES))[np.arange(rows) % 3]
    hours = random.integers(0, 24 * 90, rows).astype("timedelta64[h]").astype("timedelta64[us]")
    at = np.datetime64("2024-01-01", "us") + hours
    words = np.where(kind == "texts", table["words"].to_numpy(), 0)
    stations = [f"s{i}" for i in random.integers(0, 5, rows)]
    return (
        table.set_column(3, "words", pa.array(words, mask=kind != "texts"))
        .append_column("kind", pa.array(kind))
        .append_column("amount", pa.array(random.normal(50, 9, rows), mask=kind == "texts"))
        .append_column("at", pa.array(at))
        .append_column("station", pa.array(stations, mask=kind != "sensors"))
        .append_column("shop", pa.array(stations, mask=kind != "orders"))
    )


@pytest.fixture(scope="module")
def made(spark, tmp_path_factory):
    """A finished run of three kinds of data, held to one threshold of each and one of all."""
    thresholds = {
        "scope": 0.1, "texts/volume": 0.1, "orders/mismatch": 0.3, "sensors/sampling_rate": 0.0,
    }  # fmt: skip
    made = project(
        tmp_path_factory.mktemp("kinds"),
        columns=COLUMNS,
        budget=90,
        gime={**QUICK, "profiles": PROFILES, "columns": {"station": "station", "user": "shop"},
              "thresholds": thresholds},
    )  # fmt: skip
    jobs.write(mixed("p", 450, 1, np.arange(450) % 4), made.folder / "pool.parquet")
    jobs.write(mixed("t", 90, 2, np.arange(90) % 2), made.folder / "target.parquet")
    done = made("run")
    assert done.exit_code == 0, done.stderr + str(done.exception)
    return made


def values(made, group: str) -> dict[str, float]:
    found = jobs.table(made.folder / "ws", "metrics").to_pandas()
    mine = found[(found["form"] == "robust") & (found["group"] == group)]
    return dict(zip(mine["metric"], mine["value"], strict=True))


def test_each_source_is_measured_by_its_own_profile_in_the_same_run(made):
    pool = mixed("p", 450, 1, np.arange(450) % 4).to_pandas()
    found = values(made, "pool")
    texts = pool[pool["kind"] == "texts"]
    assert found["texts/volume"] == texts["words"].sum()
    # The volume of sensors is in values, one of each row here; a table's is in bits.
    sensors = jobs.table(made.folder / "ws", "metrics").to_pandas()
    sensors = sensors[(sensors["metric"] == "sensors/volume") & (sensors["form"] == "robust")]
    assert set(sensors["unit"]) == {"values"}
    assert sensors.set_index("group").loc["pool", "value"] == 150
    assert found["orders/distortion"] == 0.0
    shown = made("metrics")
    assert shown.exit_code == 0, shown.stderr
    for source in PROFILES:
        assert f"{source}/mismatch" in shown.stdout


def test_one_verdict_stands_over_all_kinds(made):
    stored, judged = made("gate", "--stored"), made("gate")
    assert judged.exit_code in (0, GATE_FAILED), judged.stderr + str(judged.exception)
    assert stored.exit_code == judged.exit_code
    for name in ("scope", "texts/volume", "orders/mismatch", "sensors/sampling rate"):
        assert name in judged.stdout, name
    assert len(re.findall(r"gate of run-\w+: ", judged.stdout)) == 1


def test_a_refresh_judges_every_kind_and_its_series_holds_them(made):
    grown = pa.concat_tables(
        [mixed("p", 450, 1, np.arange(450) % 4), mixed("n", 60, 7, np.arange(60) % 4)]
    )
    jobs.write(grown, made.folder / "pool.parquet")
    done = made("refresh")
    assert done.exit_code == 0, done.stderr + str(done.exception)
    series = jobs.table(made.folder / "ws", "metric_series").to_pandas()
    newest = series[(series["refresh"] == 1) & (series["group"] == "pool")]
    found = dict(zip(newest["metric"], newest["value"], strict=True))
    texts = grown.filter(pa.array(np.asarray(grown["kind"]) == "texts"))
    assert found["texts/volume"] == sum(texts["words"].to_pylist())
    assert found["sensors/volume"] == 170
    assert "orders/mismatch" in found
    assert made("gate", "--stored").exit_code in (0, GATE_FAILED)


def test_a_source_that_misses_its_threshold_fails_the_gate_of_all(made):
    missed = 'gime.thresholds={scope: 0.1, "texts/variety": 1.0, "orders/mismatch": 1.0}'
    done = made("run", missed, "gime.moves=0")
    assert done.exit_code == GATE_FAILED, done.stderr
    gate = made("gate", missed, "gime.moves=0")
    assert gate.exit_code == GATE_FAILED
    assert re.search(r"orders/mismatch: [\d.]+, but at most", gate.stdout)


def test_quota_moves_for_a_threshold_of_one_source(made):
    # The target asks for two blobs of four; the texts are to be of all.
    free = made("run", "gime.thresholds={}", "select.replay=0.3")
    assert free.exit_code == 0, free.stderr
    before = values_of_last_run(made)
    held = made("run", 'gime.thresholds={"texts/variety": 0.9}', "select.replay=0.3")
    assert held.exit_code == 0, held.stderr
    assert values_of_last_run(made) > before


def values_of_last_run(made) -> float:
    records = jobs.table(made.folder / "ws", "runs").to_pandas()
    key = records[records["stage"] == "metrics"].sort_values("finished")["fingerprint"].iloc[-1]
    found = jobs.table(made.folder / "ws", "metrics").to_pandas()
    mine = found[(found["fingerprint"] == key) & (found["group"] == "selected")]
    mine = mine[(mine["metric"] == "texts/variety") & (mine["form"] == "robust")]
    return float(mine["value"].iloc[0])


def test_any_table_is_measured_by_several_profiles(made, folder):
    place = made.folder / "target.parquet"
    done = CliRunner().invoke(
        app,
        ["metrics", str(place), "gime.profiles={texts: text, orders: tabular}",
         "--columns", "source=kind,numeric=amount,user=shop,tokens=words", "--clusters", "4",
         "--output", str(folder / "page"), "--engine", "embedded"],
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr + str(done.exception)
    for name in ("texts/volume", "orders/volume", "orders/granularity"):
        assert name in done.stdout, name
    assert "text; texts: text; orders: tabular" in (folder / "page" / "metrics.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gime.profiles={nobody: spatiotemporal, orders: tabular}", "gime.thresholds={}"],
         "no row of it"),
        (["gime.profiles={texts: txt}", "gime.thresholds={}"], "No metric profile is called 'txt'"),
        (['gime.thresholds={"people/scope": 0.5}'], "needs 'people' in gime.profiles"),
        (["columns.source=null", "gime.thresholds={}"], "needs columns.source"),
        (["gime.columns={statoin: station}", "gime.thresholds={}"], "no profile of this run has"),
        (["gime.columns={station: nowhere}", "gime.thresholds={}"], "no column 'nowhere'"),
    ],
)  # fmt: skip
def test_profiles_that_make_no_sense_are_refused(made, words, message):
    done = made("run", *words)
    assert done.exit_code == 2, done.stdout + done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
