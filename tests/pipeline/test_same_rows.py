"""The whole job on every engine: the embedded one, local Spark, a Spark Connect server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.connect_server import connect_server
from tests.pipeline import one_job, other_readers

pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).parent.parent.parent
PLACES = ("PYSPARK_GATEWAY_PORT", "DATABRICKS_RUNTIME_VERSION", "SPARK_REMOTE")


# As containers have it by default.
SHARED_MEMORY = 64 << 20
IN_CONTAINER = (
    "unshare", "--mount", "sh", "-c",
    f'mount -t tmpfs -o size={SHARED_MEMORY} tmpfs /dev/shm && exec "$@"', "sh",
)  # fmt: skip


def run(
    folder: Path, engine: str, *, before: tuple[str, ...] = (), **variables: str
) -> dict[str, Any]:
    """Run the job in a process of its own and read what it found."""
    outside = {k: v for k, v in os.environ.items() if k not in PLACES}
    done = subprocess.run(
        [*before, sys.executable, "-m", "tests.pipeline.one_job", str(folder), engine],
        cwd=ROOT,
        env={**outside, "GIO_SPARK_DRIVER_MEMORY": "1g", **variables},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / f"{engine}.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("same-rows")
    one_job.prepare(folder)
    return folder


@pytest.fixture(scope="module")
def container() -> tuple[str, ...]:
    """Words that start a program with little shared memory, none where only root may do so."""
    try:
        done = subprocess.run([*IN_CONTAINER, "true"], capture_output=True, check=False)
    except OSError:
        return ()
    return () if done.returncode else IN_CONTAINER


@pytest.fixture(scope="module")
def expected(folder, container) -> dict[str, Any]:
    """What the embedded engine finds, with as little shared memory as containers have."""
    return run(folder, "embedded", before=container)


def check(result: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same rows, to the id and the cluster; ratios to what floats allow."""
    assert result["take"] == expected["take"]
    assert result["quarantine"] == expected["quarantine"]
    assert result["pairs"] == expected["pairs"]
    assert result["strategy_sample"] == pytest.approx(expected["strategy_sample"])
    assert (
        result["strategy"]
        == expected["strategy"]
        == "the target has 60 rows, and a choice needs 100."
    )
    for one, other in zip(result["rows"], expected["rows"], strict=True):
        ratio = pytest.approx(other["gio_log_ratio"], abs=1e-5)
        assert one == {**other, "gio_log_ratio": ratio}
    assert result["report"] is True
    assert result["again"] is False


def check_other_readers(tables: Path, expected_tables: Path, result: dict[str, Any]) -> None:
    """delta-rs, pandas and DuckDB read the tables alike, with the types of the embedded engine."""
    pytest.importorskip("duckdb")
    types = other_readers.check_readers(tables)
    expected = other_readers.delta_tables(expected_tables).items()
    expected_types = {name: other_readers.column_types(table) for name, table in expected}
    assert len(types) >= 12
    assert types == {name: expected_types.get(name) for name in types}
    plain = other_readers.delta_tables(tables)["selection_plain"].to_pyarrow_table()
    rows = [{name: row[name] for name in plain.column_names} for row in result["rows"]]
    assert plain.sort_by("gio_id").to_pylist() == rows


@pytest.mark.embedded
def test_the_embedded_engine_takes_what_looks_like_the_target(expected):
    assert expected["engine"].startswith("engine: embedded")
    assert len(expected["rows"]) == 40 == len({r["gio_id"] for r in expected["rows"]})
    words = [int(r["text"].split()[0].removeprefix("wort")) for r in expected["rows"]]
    assert sum(w < 50 for w in words) >= 36
    # A model's arrays are no rows.
    assert expected["stage_rows"]["fit ratio"] is None
    assert expected["stage_rows"]["score pool"] == 300
    for row in expected["rows"]:
        values = one_job.special_values(row["cluster"])
        assert {name: row[name] for name in values} == values
    assert sum(expected["quarantine"]["pool"].values()) == 2
    assert expected["again"] is False
    assert len(expected["pairs"]) == 200
    assert 100 < len(expected["strategy_sample"]) < 200
    assert sum(expected["strategy_sample"].values()) == pytest.approx(300)
    assert sum(int(one[1:]) % 4 > 0 for one in expected["pairs"]) > 190


@pytest.mark.embedded
def test_other_tools_read_the_tables(folder, expected):
    check_other_readers(folder / "ws-embedded", folder / "ws-embedded", expected)


@pytest.mark.embedded
def test_the_shared_memory_of_a_container_is_enough(expected, container):
    if not container:
        pytest.skip("only root may mount a small /dev/shm")
    assert expected["shared_memory"] == SHARED_MEMORY


@pytest.mark.spark
def test_local_spark_selects_the_same_rows_with_its_tables_in_a_catalog(folder, expected):
    result = run(folder, "spark")
    assert result["engine"].startswith("engine: local ")
    assert result["tables"]["selected"].startswith("spark_catalog.default.selection_")
    # The view of the published name shows the same rows.
    assert result["view"] == sorted(r["gio_id"] for r in result["rows"])
    assert result["chunks"] == ["embed pool chunk 1 of 2", "embed pool chunk 2 of 2"]
    check(result, expected)
    check_other_readers(folder / "warehouse", folder / "ws-embedded", result)
    assert Path(result["report_path"]).is_absolute()


@pytest.mark.connect
def test_a_connect_server_selects_the_same_rows(folder, expected):
    with connect_server(folder) as address:
        # A process that is told of a server goes there, not to the embedded engine.
        result = run(folder, "auto", SPARK_REMOTE=address)
    assert result["engine"].startswith("engine: connect ")
    check(result, expected)
    check_other_readers(folder / "ws-auto", folder / "ws-embedded", result)
