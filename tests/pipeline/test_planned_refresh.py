"""A refresh that is planned: what has changed and what it costs, with nothing written."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from gio_spark.cli import app
from gio_spark.engine.progress import Progress
from gio_spark.errors import InputError
from gio_spark.pipeline.commands.plan_refresh import plan_refresh
from gio_spark.pipeline.refresh import refresh
from gio_spark.tables import Workspace
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded

SILENT = Progress("silent")


def files(place):
    """Every file of the workspace with its content's length and time."""
    return {
        str(f): (f.stat().st_size, f.stat().st_mtime_ns)
        for f in (place / "ws").rglob("*")
        if f.is_file()
    }


def test_changed_rows_and_their_cost_are_told_before_anything_is_written(spark, place):
    config = jobs.settings(place, gime={"on_refresh": False}, within_cluster="density_ratio")
    with pytest.raises(InputError, match="No finished run"):
        plan_refresh(config, progress=SILENT)
    assert not (place / "ws").exists()
    run = jobs.go(config)
    nothing = plan_refresh(config, progress=SILENT)
    assert nothing.is_current and nothing.run_id == run.run_id
    assert (nothing.pool_rows, nothing.seconds, nothing.stages) == (600, 0, ())

    pool = jobs.vector_pool().slice(20)
    words = pa.array([99] * 30 + pool["words"].to_pylist()[30:], pa.int64())
    pool = pool.set_column(3, "words", words)  # other values, the same content
    new = jobs.vector_pool(50, seed=8, name="n")
    vectors = [None, *new["vector"].to_pylist()[1:]]
    new = new.set_column(1, "vector", pa.array(vectors, new["vector"].type))
    copied = jobs.vector_pool(10).set_column(0, "id", pa.array([f"c{i}" for i in range(10)]))
    jobs.write(pa.concat_tables([pool, new, copied]), place / "pool.parquet")
    before = files(place)
    planned = plan_refresh(config, progress=SILENT)
    assert files(place) == before
    assert not planned.is_current and planned.pool_rows == 640
    assert (planned.new_rows, planned.changed_rows, planned.gone_rows) == (60, 30, 20)
    # Rows whose content is known are not embedded.
    assert planned.rows_to_embed == 50
    rows = {stage.name: stage.rows for stage in planned.stages}
    assert rows == {"embed pool": 50, "assign pool": 90, "score pool": 90, "plan": 640,
                    "refresh": 640}  # fmt: skip
    assert all(stage.seconds > 0 for stage in planned.stages)
    assert planned.seconds == pytest.approx(sum(stage.seconds for stage in planned.stages))

    config_file = place / "job.yml"
    config_file.write_text(json.dumps(config.model_dump(mode="json", exclude_unset=True)))
    told = CliRunner().invoke(app, ["refresh", str(config_file), "--dry-run", "--json"])
    assert told.exit_code == 0, told.output
    facts = json.loads(told.stdout)
    assert facts["counts"] == {"pool": 640, "new": 60, "changed": 30, "gone": 20, "to_embed": 50}
    assert files(place) == before

    done = refresh(config, progress=SILENT)
    assert (done.new_rows, done.changed_rows, done.gone_rows) == (60, 30, 20)
    records = Workspace(spark, config.workspace).records()
    changes = [r for r in records if r.stage == "embed pool"][-1].detail["changes"]
    assert changes["added"] + changes["changed"] - changes["known"] == planned.rows_to_embed
    again = plan_refresh(config, progress=SILENT)
    assert again.is_current and again.drift == done.drift and again.pool_rows == 640
    assert np.isfinite(done.drift.figures.share_shift)
