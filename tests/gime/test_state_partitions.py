"""Refreshes: states of changed partitions, the gate's verdict, and the series of metrics."""

from __future__ import annotations

import pyarrow as pa
import pytest

from gio_spark import gime
from gio_spark.engine.progress import Progress
from gio_spark.pipeline import refresh as refreshing
from gio_spark.pipeline.refresh import refresh
from gio_spark.pipeline.stages import metric_series as series_of
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded

HELD = {"thresholds": {"scope": 0.1, "mismatch": 0.5}, "screen": 20, "sample": 400}


@pytest.fixture(scope="module")
def refreshed(spark, tmp_path_factory):
    """A run that was refreshed three times: rows come, go, and come back."""
    folder = tmp_path_factory.mktemp("series")
    base = jobs.vector_pool(400)
    jobs.write(base, folder / "pool.parquet")
    jobs.write(jobs.vector_target(60), folder / "target.parquet")
    settings = jobs.settings(folder, budget=60, gime=HELD)
    jobs.go(settings)
    new = [jobs.vector_pool(60, seed=8 + i, name=f"n{i}") for i in range(3)]
    pools = [
        pa.concat_tables([base.slice(30), new[0]]),
        pa.concat_tables([base.slice(60), *new[:2]]),
        pa.concat_tables([base, *new[1:]]),
    ]
    done = []
    for pool in pools:
        jobs.write(pool, folder / "pool.parquet")
        done.append(refresh(settings, progress=Progress("silent")))
    return folder / "ws", pools, done


def newest_figures(workspace, stage="refresh metrics"):
    records = [r for r in jobs.table(workspace, "runs").to_pylist() if r["stage"] == stage]
    figures = jobs.table(workspace, "metrics").to_pandas()
    ordered = sorted(records, key=lambda r: r["finished"])
    return [figures[figures["fingerprint"] == r["fingerprint"]] for r in ordered]


def test_merged_states_equal_those_of_the_entire_pool(refreshed):
    workspace, pools, _ = refreshed
    newest = newest_figures(workspace)
    assert len(newest) == 3
    for figures, pool in zip(newest, pools, strict=True):
        values = gime.robust_values(figures, "pool")
        assert values["volume"] == sum(pool["words"].to_pylist())
        assert figures[figures["group"] == "pool"]["rows"].max() == pool.num_rows


def test_the_gate_is_judged_on_every_refresh(refreshed):
    _, _, done = refreshed
    for one in done:
        assert one.gate is not None
        assert {c.metric for c in one.gate.checks} == {"scope", "mismatch"}


def test_the_series_holds_every_refresh_with_its_change(refreshed):
    workspace, _, _ = refreshed
    series = jobs.table(workspace, "metric_series").to_pandas()
    assert sorted(series["refresh"].unique()) == [0, 1, 2, 3]
    assert set(series["group"]) == {"pool", "selected", "random"}
    volume = series[(series["group"] == "pool") & (series["metric"] == "volume")]
    volume = volume.sort_values("refresh")
    assert volume["change"].iloc[1:].tolist() == volume["value"].diff().iloc[1:].tolist()
    assert series["gate_passed"].notna().all()
    # Drift needs a history of five.
    assert not series["drifted"].any()


def test_selected_rows_are_measured_as_they_are_now(refreshed):
    workspace, _, done = refreshed
    figures = newest_figures(workspace)[-1]
    rows = figures[figures["group"] == "selected"]["rows"].max()
    assert rows == done[-1].after == jobs.table(workspace, "selected").num_rows


def test_a_refresh_that_died_before_its_entry_gets_it_from_the_next_start(
    spark, tmp_path, monkeypatch
):
    base = jobs.vector_pool(200)
    jobs.write(base, tmp_path / "pool.parquet")
    jobs.write(jobs.vector_target(40), tmp_path / "target.parquet")
    settings = jobs.settings(tmp_path, budget=40)
    jobs.go(settings)
    jobs.write(
        pa.concat_tables([base, jobs.vector_pool(30, seed=8, name="n")]), tmp_path / "pool.parquet"
    )

    def die(*_args, **_more):
        raise KeyboardInterrupt

    # First it dies before the metrics, then between them and the series.
    for module, name in ((refreshing, "measure_refresh"), (series_of, "write_series")):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, name, die)
            refresh(settings, progress=Progress("silent"))
    done = refresh(settings, progress=Progress("silent"))
    assert done.did_work and (done.new_rows, done.after) == (
        30,
        jobs.table(tmp_path / "ws", "selected").num_rows,
    )
    series = jobs.table(tmp_path / "ws", "metric_series").to_pandas()
    volume = series[(series["group"] == "pool") & (series["metric"] == "volume")]
    assert volume.sort_values("refresh")["refresh"].tolist() == [0, 1]
    assert not refresh(settings, progress=Progress("silent")).did_work
    stages = [r["stage"] for r in jobs.table(tmp_path / "ws", "runs").to_pylist()]
    assert stages.count("refresh") == stages.count("refresh metrics") == 1
