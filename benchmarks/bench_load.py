"""Run the pipeline on a small cluster over millions of vectors, and watch tasks and memory.

    make bench-load [ROWS=3000000] [ARGS="--layouts even,one-file --cache FOLDER"]

The cluster is `local-cluster[1,2,4096]`, the driver has 2 GB. For each layout of the same rows
(load_data.LAYOUTS) a process runs all stages and then a refresh with 1 % new rows. Told are the
seconds of each part of the run, the Spark stage whose longest task is farthest above the median one
(stages whose longest task takes under 2 s are left out), failed tasks, and the peak resident memory
of every kind of process beside the forecast. The whole run stands beside one scan, one product
with as many centroids and one write of the vectors by numpy and pyarrow alone.
Data are written once into the cache, about 1.6 kB a row and layout, and stay there unless
`--remove` is given. Writes benchmarks/results/load.json.
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
import threading
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from load_data import COLUMNS, LAYOUTS, MOST_PIECE_ROWS, make_layout

DIMENSION, NEW_SHARE = 384, 0.01
MASTER, DRIVER, HEAP = "local-cluster[1,2,4096]", "2g", "2500m"
# Longest task over the median one, at most; of stages whose longest task takes so many seconds.
BAR, SECONDS = 3.0, 2.0
MB = 1 << 20


def settings_of(root: Path, work: Path) -> dict:
    return {
        "pool": str(work / "pool"), "target": str(root / "target.parquet"), "columns": COLUMNS,
        "embedder": "vectors", "budget": 0.05, "engine": "spark", "workspace": str(work / "ws"),
        "tracking": {"enabled": False},
    }  # fmt: skip


def run_layout(root: Path, work: Path) -> None:
    """Run and refresh in this process; seconds, windows of the parts and forecast to a file."""
    from gio_spark.engine import session
    from gio_spark.engine.local_spark import spark_home
    from gio_spark.engine.progress import Progress
    from gio_spark.pipeline import run
    from gio_spark.pipeline.commands.forecast import forecast
    from gio_spark.pipeline.refresh import refresh
    from gio_spark.settings.load import build

    (work / "events").mkdir()
    conf = {
        "spark.master": MASTER,
        "spark.executor.memory": HEAP,
        "spark.local.dir": str(work / "spark"),
        "spark.eventLog.enabled": "true",
        "spark.eventLog.rolling.enabled": "false",
        "spark.eventLog.compress": "false",
        "spark.eventLog.dir": (work / "events").as_uri(),
    }
    settings = build(settings_of(root, work))
    spark = session("spark", **conf)
    spark.sql("SELECT 1").collect()
    progress = Progress("lines")
    began = time.monotonic()
    curation = run(settings, spark=spark, progress=progress)
    parts = part_windows(progress, settings, began)
    clusters = curation.plan["rows"]
    os.link(root / "new.parquet", work / "pool" / "new.parquet")
    began = time.monotonic()
    done = refresh(settings, spark=spark, progress=progress)
    parts["refresh"] = (began, time.monotonic())
    rows = int(curation.summary["pool_rows"])
    assert done.new_rows == round(rows * NEW_SHARE), done
    outlook = forecast(
        pool=rows, targets={"target": curation.summary["target_rows"]}, clusters=len(clusters),
        dimension=DIMENSION, embedder="vectors", settings=settings, engine="cluster",
    )  # fmt: skip
    offset = time.time() - time.monotonic()
    result = {
        "parts": {name: [start + offset, end + offset] for name, (start, end) in parts.items()},
        "clusters": len(clusters),
        "largest_cluster": float(clusters.max() / clusters.sum()),
        "selected": int(curation.summary["selected_rows"]),
        "driver_forecast": outlook.driver_bytes,
        "worker_forecast": outlook.worker_bytes,
        "core_seconds": outlook.core_seconds,
    }
    # Spark leaves the jars and logs of an executor in its own folder.
    executors = spark_home() / "work" / spark.sparkContext.applicationId
    spark.stop()
    shutil.rmtree(executors, ignore_errors=True)
    (work / "result.json").write_text(json.dumps(result))


def part_windows(progress, settings, began: float) -> dict[str, tuple[float, float]]:
    """Begin and end of each part of a run; what lies between two stages counts for the second."""
    from gio_spark.pipeline.stages.run_graph import PARTS, run_graph

    makers = {name: stage.name for stage in run_graph(settings) for name in stage.outputs}
    ends = {makers[goal]: part for part, goal in PARTS.items()}
    windows = {}
    for stage in progress.stages:
        if stage.name in ends:
            windows[ends[stage.name]] = (began, stage.ended)
            began = stage.ended
    windows["report"] = (began, time.monotonic())
    return windows


class MemoryWatch(threading.Thread):
    """Peak resident bytes of a process and its descendants, by kind of process."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process, self.samples = psutil.Process(pid), []

    def peaks(self, begin: float = 0.0, end: float = float("inf")) -> dict[str, int]:
        """Peak by kind of process between two times."""
        peaks: dict[str, int] = defaultdict(int)
        for at, now in self.samples:
            for kind, resident in now.items() if begin <= at < end else ():
                peaks[kind] = max(peaks[kind], resident)
        return dict(peaks)

    def run(self) -> None:
        while self.process.is_running():
            now: dict[str, int] = defaultdict(int)
            for kind, resident in self._processes():
                now[kind] += resident
                if kind == "workers":
                    now["largest worker"] = max(now["largest worker"], resident)
            now["executor with workers"] = now["executor JVM"] + now["workers"]
            self.samples.append((time.time(), dict(now)))
            time.sleep(0.5)

    def _processes(self):
        try:
            every = [self.process, *self.process.children(recursive=True)]
        except psutil.Error:
            return
        for one in every:
            try:
                words, resident = " ".join(one.cmdline()), one.memory_info().rss
            except psutil.Error:
                continue
            if one is self.process:
                yield "driver Python", resident
            elif "CoarseGrainedExecutorBackend" in words:
                yield "executor JVM", resident
            elif "org.apache.spark" in words:
                yield "driver JVM", resident
            elif "pyspark" in words:
                yield "workers", resident


def spark_stages(log: Path) -> list[dict]:
    """Stages of an event log with begin (s since 1970), seconds of tasks, and failed tasks."""
    stages: dict[tuple, dict] = defaultdict(lambda: {"tasks": [], "failed": 0})
    for line in log.open():
        event = json.loads(line)
        if event["Event"] == "SparkListenerTaskEnd":
            stage = stages[event["Stage ID"], event["Stage Attempt ID"]]
            info = event["Task Info"]
            stage["tasks"].append((info["Finish Time"] - info["Launch Time"]) / 1e3)
            stage["failed"] += int(info["Failed"])
        elif event["Event"] == "SparkListenerStageCompleted":
            info = event["Stage Info"]
            stage = stages[info["Stage ID"], info["Stage Attempt ID"]]
            stage["failed"] += int("Failure Reason" in info)
            stage["begin"] = info["Submission Time"] / 1e3
            stage["end"] = info["Completion Time"] / 1e3
            stage["scopes"] = sorted({r["Name"] for r in info["RDD Info"]})
    return [stage for stage in stages.values() if "begin" in stage and stage["tasks"]]


def worst_stage(stages: list[dict]) -> dict:
    """Stage whose longest task is farthest above its median one."""
    long = [s for s in stages if max(s["tasks"]) >= SECONDS]
    worst = max(long, key=lambda s: max(s["tasks"]) / median(s["tasks"]), default=None)
    if worst is None:
        return {"longest": max((max(s["tasks"]) for s in stages), default=0.0)}
    longest, middle = max(worst["tasks"]), median(worst["tasks"])
    return {"longest": longest, "median": middle, "ratio": longest / middle,
            "tasks": len(worst["tasks"])}  # fmt: skip


def plain_numpy(root: Path, clusters: int, work: Path) -> dict[str, float]:
    """Seconds of one scan of the pool, one product with the centroids and one write."""
    seconds = {"scan": 0.0, "product": 0.0, "write": 0.0}
    centroids = np.random.default_rng(0).standard_normal((clusters, DIMENSION), dtype=np.float32)
    half = 0.5 * (centroids * centroids).sum(axis=1)
    schema = pa.schema([("id", pa.string()), ("vector", pa.binary(4 * DIMENSION)),
                        ("cluster", pa.int64())])  # fmt: skip
    with pq.ParquetWriter(work / "plain.parquet", schema, compression="none") as out:
        for path in sorted((root / "pool").glob("*.parquet")):
            batches = pq.ParquetFile(path).iter_batches(MOST_PIECE_ROWS, columns=["id", "vector"])
            while True:
                t0 = time.perf_counter()
                batch = next(batches, None)
                t1 = time.perf_counter()
                seconds["scan"] += t1 - t0
                if batch is None:
                    break
                flat = batch["vector"].flatten()
                vectors = flat.to_numpy().reshape(-1, DIMENSION)
                blocks = np.array_split(vectors, max(1, len(vectors) // 2048))
                nearest = [(block @ centroids.T - half).argmax(axis=1) for block in blocks]
                t2 = time.perf_counter()
                seconds["product"] += t2 - t1
                bytes_of = [None, pa.py_buffer(vectors)]
                column = pa.Array.from_buffers(schema.types[1], len(vectors), bytes_of)
                columns = [batch["id"], column, np.concatenate(nearest)]
                out.write(pa.table(columns, schema=schema))
                seconds["write"] += time.perf_counter() - t2
    return seconds


def measure_layout(layout: str, given: argparse.Namespace) -> dict:
    """Run one layout in a process of its own and return what was seen of it."""
    root = make_layout(given.cache, layout, given.rows, DIMENSION, NEW_SHARE)
    work = Path(tempfile.mkdtemp(prefix="work-", dir=given.cache))
    try:
        (work / "pool").mkdir()
        for path in (root / "pool").iterdir():
            os.link(path, work / "pool" / path.name)
        command = [sys.executable, __file__, "--child", str(root), "--work", str(work)]
        environment = {**os.environ, "GIO_SPARK_DRIVER_MEMORY": DRIVER}
        child = subprocess.Popen(command, env=environment)
        watch = MemoryWatch(child.pid)
        watch.start()
        load = []
        while child.poll() is None:
            time.sleep(5)
            load.append(os.getloadavg()[0])
        if child.returncode:
            raise SystemExit(f"{layout}: the run failed with {child.returncode}")
        result = json.loads((work / "result.json").read_text())
        (log,) = (work / "events").iterdir()
        stages = spark_stages(log)
        if given.keep_log:
            shutil.copy(log, given.cache / f"events-{layout.replace(' ', '-')}.json")
        result |= {
            "peaks": watch.peaks(),
            "part_peaks": {part: watch.peaks(*ends) for part, ends in result["parts"].items()},
            "load": float(np.mean(load)),
            "failed": sum(s["failed"] for s in stages),
            "plain": plain_numpy(root, result["clusters"], work),
            "worst": {
                part: worst_stage([s for s in stages if begin <= s["begin"] < end])
                for part, (begin, end) in result["parts"].items()
            },
        }
        return result
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if given.remove:
            shutil.rmtree(root)


def figures_of(layout: str, result: dict, rows: int) -> list[dict]:
    """Print what was seen of a layout and return its figures."""
    figures = []

    def add(figure, value, unit, anchor=None, bar=None, holds=None) -> None:
        ratio = None if anchor is None else value / anchor
        figures.append({"figure": f"{layout}: {figure}", "value": value, "unit": unit,
                        "anchor": anchor, "ratio": ratio, "bar": bar, "holds": holds})  # fmt: skip

    print(f"\n{layout}: {rows:,} rows, {result['clusters']:,} clusters, the largest "
          f"{result['largest_cluster']:.1%}, load {result['load']:.1f}")  # fmt: skip
    for part, (begin, end) in result["parts"].items():
        worst = result["worst"][part]
        add(part, end - begin, "s")
        peak = result["part_peaks"][part]
        driver, worker = (peak.get(kind, 0) / MB for kind in ("driver Python", "largest worker"))
        line = f"  {part:<10} {end - begin:7.1f} s   driver {driver:5.0f}, worker {worker:5.0f} MB"
        line += f"   longest task {worst['longest']:6.1f} s"
        if "ratio" in worst:
            add(f"{part}, longest task over median", worst["longest"], "s", worst["median"],
                f"<= {BAR:g} times", worst["ratio"] <= BAR)  # fmt: skip
            line += f", median {worst['median']:.1f} s of {worst['tasks']}: x{worst['ratio']:.1f}"
        print(line)
    add("mean load of the machine", result["load"], "processes")
    add("failed tasks", result["failed"], "tasks", bar="0", holds=not result["failed"])
    forecasts = {"driver Python": "driver_forecast", "largest worker": "worker_forecast"}
    for kind, peak in sorted(result["peaks"].items()):
        known = result.get(forecasts.get(kind, ""))
        add(f"peak of {kind}", peak / MB, "MB", known and known / MB,
            "<= forecast" if known else None, peak <= known if known else None)  # fmt: skip
        print(
            f"  {kind:<22} {peak / MB:7.0f} MB" + (f"   forecast {known / MB:.0f}" if known else "")
        )
    parts = {part: end - begin for part, (begin, end) in result["parts"].items()}
    whole = sum(parts.values()) - parts["refresh"]
    plain = sum(result["plain"].values())
    add("whole run over plain numpy", whole, "s", plain)
    said = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result["plain"].items())
    print(f"  whole run {whole:.0f} s, plain numpy {plain:.0f} s ({said}): x{whole / plain:.1f}")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=int(os.environ.get("ROWS", "3000000")))
    parser.add_argument("--layouts", default=",".join(LAYOUTS).replace(" ", "-"))
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "gio-spark-load")
    parser.add_argument("--cache", type=Path, default=cache)
    parser.add_argument(
        "--remove", action="store_true", help="remove the data of a layout after it"
    )
    parser.add_argument("--keep-log", action="store_true", help="keep Spark's event logs")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "load.json")
    given = parser.parse_args()
    if given.child:
        run_layout(given.child, given.work)
        return
    given.cache = given.cache.absolute()
    given.cache.mkdir(parents=True, exist_ok=True)
    layouts = given.layouts.replace("-", " ").split(",")
    figures = []
    for layout in layouts:
        figures += figures_of(layout, measure_layout(layout, given), given.rows)
    machine = {"cpu": platform.machine(), "cores": os.cpu_count(), "rows": given.rows,
               "python": platform.python_version(), "date": time.strftime("%Y-%m-%d")}  # fmt: skip
    # Layouts may be run one by one: the figures of the others stay, where they are of this size.
    stored = json.loads(given.out.read_text()) if given.out.exists() else {}
    if stored.get("machine", {}).get("rows") == given.rows:
        names = {layout + ":" for layout in layouts}
        others = [f for f in stored["figures"] if not f["figure"].startswith(tuple(names))]
        figures = others + figures
    given.out.write_text(json.dumps({"machine": machine, "figures": figures}, indent=1) + "\n")
    print(f"\nwrote {given.out}")


if __name__ == "__main__":
    main()
