"""Time the main job end to end on real data, beside the same steps done the published code's way.

    python benchmarks/bench_pipeline.py --data PATH [--engines embedded,spark] [--tasks text,images]
        [--reference PYTHON] [--without-reference] [--work FOLDER]

Every run is the command `gio-spark run`, a process of its own, start of the engine included. The
published way is: MLlib's K-means of pool and of target, each with its 20 iterations, its own start
(k-means||) and the published K = 1,500 (start and three iterations measured on a sample, iterations
scaled by rows), the published gradient loop on 1,500 x 1,500 centroids of the task's dimension (two
picks measured at the start and two after 1,000 picks, for each pick costs more than the one
before), and an explosion that compares each row's centroid with the selected ones by float equality
(measured on a sample, scaled by rows); all of it before and after a task's runs, of which the mean
counts. Embedding is not in it.
Prints a table and writes benchmarks/results/pipeline.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from bench_gio import HELD, N, mixture, reference_python
from deltalake import DeltaTable
from tasks import TASKS, Task, data_folder

ROOT = Path(__file__).resolve().parent.parent
# Seconds that each run may take: (embedded, spark).
BARS = {"text": {"embedded": 180, "spark": 360}, "images": {"embedded": 120, "spark": 240}}
SETTINGS = {
    "text": {},
    "images": {"clusters": 1000, "embed": {"name": "images", "dimension": 64}},
}
MLLIB_ROWS, MLLIB_ITERATIONS, PICKS = 10_000, 20, 1_000
DIMENSIONS = {"text": 256, "images": 64}


def one_run(task: Task, engine: str, workspace: Path) -> tuple[float, dict]:
    """Run `gio-spark run` in a process of its own; gives its wall time and what its record says."""
    config = workspace.with_suffix(".yml")
    # JSON is YAML.
    settings = {"pool": str(task.pool), "target": str(task.target), "budget": 0.1,
                "workspace": str(workspace), "engine": engine, "columns": task.columns,
                **SETTINGS[task.name]}  # fmt: skip
    config.write_text(json.dumps(settings))
    command = [sys.executable, "-c", "from gio_spark.cli import main; main()", "run", str(config)]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)  # fmt: skip
    wall = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(done.stdout)
    runs = DeltaTable(workspace / "runs").to_pyarrow_table(filters=[("stage", "=", "run")])
    record = json.loads(runs["detail"][0].as_py())
    return wall, {**record, "did_work": "nothing to do" not in done.stdout}


def sources(task: Task, workspace: Path) -> str:
    """Return the most frequent sources of the rows that were selected, in one line."""
    source = task.columns["source"]
    (selection,) = workspace.glob("selection_*")
    table = DeltaTable(selection).to_pyarrow_table(columns=[source])
    return ", ".join(f"{k} {v}" for k, v in Counter(table[source].to_pylist()).most_common(5))


def mllib(rows: int, dimension: int, clusters: int) -> tuple[float, float]:
    """Return seconds of MLlib's start, and of one iteration of its best solver per row.

    Measured on a sample; the start hardly depends on the rows: its last step is K-means on the
    candidates, in one thread of the driver.
    """
    from pyspark.ml.clustering import KMeans
    from pyspark.ml.functions import array_to_vector

    from gio_spark.engine import session

    # MLlib computes in the JVM: it gets the optimising compiler, which our own runs do without.
    spark = session("spark", **{"spark.driver.extraJavaOptions": "-XX:+UseParallelGC"})
    rng = np.random.default_rng(0)
    values = rng.standard_normal((rows, dimension)).astype(np.float64)
    frame = spark.createDataFrame([(v.tolist(),) for v in values], "v array<double>")
    frame = frame.select(array_to_vector("v").alias("features")).repartition(2).cache()
    frame.count()

    def seconds(start: str, iterations: int) -> float:
        began = time.perf_counter()
        KMeans(k=clusters, maxIter=iterations, initMode=start, solver="block", seed=1, tol=0.0).fit(
            frame
        )
        return time.perf_counter() - began

    seconds("random", 1)  # the first one warms the JVM
    one, four = seconds("random", 1), seconds("random", 4)
    start = seconds("k-means||", 1) - one
    spark.stop()
    return max(start, 0.0), (four - one) / 3 / rows


def float_equality(clusters: int, dimension: int, chosen: int, rows: int = 2_000) -> float:
    """Return seconds per row of an explosion that compares centroids value by value."""
    rng = np.random.default_rng(0)
    centroids = rng.standard_normal((clusters, dimension)).astype(np.float32)
    selected = [tuple(c) for c in centroids[:chosen].tolist()]
    assigned = [tuple(centroids[i].tolist()) for i in rng.integers(0, clusters, rows)]
    began = time.perf_counter()
    sum(1 for row in assigned if row in selected)  # a list, as there: every one is compared
    return (time.perf_counter() - began) / rows


def one_pick(python: Path, dimension: int, selected: int) -> float:
    """Return seconds of one pick of the published code, the mean of two after the first.

    Args:
        python: Interpreter that has the published code.
        dimension: Of the centroids.
        selected: Points selected before.
    """
    held = np.random.default_rng(3).uniform(-1, 1, (selected, dimension)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "in.npz"), Path(folder, "out.json")
        np.savez(source, target=mixture(N, dimension, 1), pool=mixture(N, dimension, 2), held=held)
        worker = ROOT / "benchmarks" / "reference_gio.py"
        subprocess.run([str(python), str(worker), str(source), str(out), "3"], check=True)
        return float(np.mean(json.loads(out.read_text())["picks"]))


def published_way(rows: int, target: int, dimension: int, python: Path) -> dict[str, float]:
    """Return seconds of each step done the published code's way, extrapolated.

    In a process of its own: MLlib's JVM would live on in this one, and take cores from our runs.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_published_way, rows, target, dimension, python).result()


def _published_way(rows: int, target: int, dimension: int, python: Path) -> dict[str, float]:
    start, iteration = mllib(MLLIB_ROWS, dimension, N)
    # A pick's cost grows with what is selected, in a straight line: the mean of both ends.
    pick = np.mean([one_pick(python, dimension, n) for n in (HELD, HELD + PICKS)])
    return {
        "K-means": start + iteration * rows * MLLIB_ITERATIONS,
        "K-means of the target": start + iteration * target * MLLIB_ITERATIONS,
        "selection": float(pick) * PICKS,
        "explosion": float_equality(N, dimension, PICKS) * rows,
    }


def line(figure, value, unit, anchor=None, ratio=None, bar=None, holds=None) -> dict:
    """Return one figure of the results."""
    return {"figure": figure, "value": value, "unit": unit, "anchor": anchor, "ratio": ratio,
            "bar": bar, "holds": holds}  # fmt: skip


def measure(given: argparse.Namespace) -> list[dict]:
    """Run every task on every engine and return the figures."""
    data = data_folder(given.data)
    work = Path(given.work).absolute()
    python = None if given.without_reference else reference_python(given.reference)
    figures: list[dict] = []
    ways: dict[str, dict[str, float]] = {}
    walls: dict[tuple[str, str], float] = {}
    for name in given.tasks.split(","):
        task = TASKS[name](data, work / name)
        sizes = [pq.read_metadata(file).num_rows for file in (task.pool, task.target)]
        before = {} if python is None else published_way(*sizes, DIMENSIONS[name], python)
        for engine in given.engines.split(","):
            workspace = work / f"workspace-{name}-{engine}"
            shutil.rmtree(workspace, ignore_errors=True)
            wall, first = one_run(task, engine, workspace)
            again, second = one_run(task, engine, workspace)
            bar = BARS[name][engine]
            print(f"{name} on {engine}: {wall:.0f} s, {first['selected_rows']:,} rows "
                  f"({sources(task, workspace)})")  # fmt: skip
            for stage, seconds, rows, _ in first["stages"]:
                print(f"    {stage:<16} {seconds:8.1f} s  {rows or 0:>10,} rows")
            figures.append(
                line(f"{name}, {engine}: whole run", wall, "s", bar=f"< {bar} s", holds=wall < bar)
            )
            figures.append(
                line(
                    f"{name}, {engine}: second run",
                    again,
                    "s",
                    bar="does no work",
                    holds=not second["did_work"],
                )
            )
            walls[name, engine] = wall
        if python is not None:
            # Machines are not equally quick all the time: the mean of before and after the runs.
            after = published_way(*sizes, DIMENSIONS[name], python)
            ways[name] = {k: (v + after[k]) / 2 for k, v in before.items()}
    if python is None:
        return figures
    for (name, engine), wall in walls.items():
        total = sum(ways[name].values())
        said = ", ".join(f"{k} {v:,.0f} s" for k, v in ways[name].items())
        # Local Spark's start alone takes a large part of these seconds: it has no bar.
        barred = engine == "embedded"
        figures.append(
            line(
                f"{name}, {engine}: against the published way",
                wall,
                "s",
                anchor=f"extrapolated: {said}",
                ratio=total / wall,
                bar=">= 100" if barred else None,
                holds=total / wall >= 100 if barred else None,
            )
        )
    return figures


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data")
    parser.add_argument("--engines", default="embedded,spark")
    parser.add_argument("--tasks", default="text,images")
    parser.add_argument("--work", default="build/bench-pipeline")
    parser.add_argument("--reference", default=os.environ.get("GIO_REFERENCE_PYTHON"))
    parser.add_argument("--without-reference", action="store_true")
    parser.add_argument("--out", default=str(ROOT / "benchmarks" / "results" / "pipeline.json"))
    given = parser.parse_args()
    figures = measure(given)
    for one in figures:
        ratio = "" if one["ratio"] is None else f"  x{one['ratio']:,.0f}"
        verdict = {True: "holds", False: "MISSED", None: ""}[one["holds"]]
        print(f"{one['figure']:<50} {one['value']:>9.1f} {one['unit']}{ratio}  bar {one['bar']}: "
              f"{verdict}")  # fmt: skip
        if one["anchor"]:
            print(f"    {one['anchor']}")
    machine = {"cpu": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0],
               "python": platform.python_version(), "date": time.strftime("%Y-%m-%d")}  # fmt: skip
    out = Path(given.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
