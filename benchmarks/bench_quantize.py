"""Measure the quantise stage against MLlib, faiss-cpu and the bare numpy kernel, in one run.

    python benchmarks/bench_quantize.py [--rows 1000000] [--parts mllib,faiss,...]

Ratios are between runs of the same program on the same data and machine, one after another; each
part runs in a process of its own (Spark's two APIs cannot share one). Needs Java for MLlib and
faiss-cpu for its comparison (`pip install faiss-cpu`, used by nothing else).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("kernel", "cores", "mllib", "faiss", "assign", "scaling", "big")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of fit and assignment")
    parser.add_argument("--mllib-rows", type=int, default=100_000, help="a size MLlib can finish")
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--clusters", type=int, default=1_500)
    parser.add_argument("--kernel-clusters", type=int, default=8_192)
    parser.add_argument("--iterations", type=int, default=10, help="MLlib's and faiss's")
    parser.add_argument("--scaling", default="100000,300000,1000000,3000000")
    parser.add_argument("--scaling-clusters", type=int, default=256)
    parser.add_argument("--scaling-dimension", type=int, default=384)
    parser.add_argument("--big-rows", type=int, default=300_000)
    parser.add_argument("--big-clusters", type=int, default=65_536)
    parser.add_argument("--big-passes", type=int, default=4)
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--engines", default="embedded,spark")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--data", default=None, help="folder for the data; none: a temporary one")
    parser.add_argument("--out", default=str(ROOT / "benchmarks" / "results" / "quantize.json"))
    parser.add_argument("--worker", default=None, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


# --- data -------------------------------------------------------------------------------------


def dataset(folder: str, rows: int, dimension: int) -> str:
    """Write clustered rows (id, vector BINARY) as Parquet, once, and return the path."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from gio_spark.engine import encode_vectors

    path = Path(folder) / f"rows-{rows}-{dimension}"
    if path.exists():
        return str(path)
    path.mkdir(parents=True)
    rng = np.random.default_rng(0)
    places = rng.standard_normal((4000, dimension)).astype(np.float32)
    for start in range(0, rows, 25_000):
        count = min(25_000, rows - start)
        x = rng.standard_normal((count, dimension)).astype(np.float32)
        x += places[rng.integers(0, len(places), count)]
        table = pa.table(
            {
                "id": [f"row-{i}" for i in range(start, start + count)],
                "vector": encode_vectors(x),
            }
        )
        pq.write_table(table, path / f"{start:09d}.parquet", compression="none")
    return str(path)


def matrix(path: str, rows: int | None = None):
    """Read the vectors of the first rows as one matrix."""
    import pyarrow.parquet as pq

    from gio_spark.engine import decode_vectors

    table = pq.read_table(path, columns=["vector"])
    return decode_vectors((table if rows is None else table.slice(0, rows))["vector"])


def inertia(x, centroids) -> float:
    """Return the inertia per row."""
    import numpy as np

    from gio_spark.kernels import nearest

    return float(nearest(x, centroids)[1].astype(np.float64).mean())


def rss() -> float:
    """Return this process's peak memory in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def worker_peak() -> float:
    """Return the highest peak memory of Spark's Python workers now alive, in MB."""
    best = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
            if b"pyspark" in line and b"daemon" in line:
                for entry in (folder / "status").read_text().splitlines():
                    if entry.startswith("VmHWM"):
                        best = max(best, int(entry.split()[1]) / 1024)
        except OSError:
            continue
    return best


def bare_kernel(dimension: int, clusters: int, rows: int = 2048) -> float:
    """Return GFLOP/s of product, norms and argmin in numpy on this thread, the best of three."""
    import numpy as np

    rng = np.random.default_rng(1)
    x = rng.standard_normal((rows, dimension)).astype(np.float32)
    c = rng.standard_normal((clusters, dimension)).astype(np.float32)
    half = (0.5 * (c * c).sum(axis=1)).astype(np.float32)
    scores = np.empty((512, clusters), dtype=np.float32)
    best = math.inf
    for _ in range(3):
        began = time.perf_counter()
        for start in range(0, rows, 512):
            np.matmul(x[start : start + 512], c.T, out=scores)
            np.subtract(scores, half, out=scores)
            scores.argmax(axis=1)
        best = min(best, time.perf_counter() - began)
    return 2e-9 * rows * dimension * clusters / best


# --- parts, each in a process of its own ------------------------------------------------------


def part_kernel(a: argparse.Namespace, engine: str) -> dict:
    """Certified kernel against the bare one, one thread."""
    import numpy as np

    from gio_spark.kernels import Codebook, nearest

    out = {}
    for clusters in (a.clusters, a.kernel_clusters):
        rng = np.random.default_rng(1)
        x = rng.standard_normal((4096, a.dimension)).astype(np.float32)
        book = Codebook(rng.standard_normal((clusters, a.dimension)).astype(np.float32))
        nearest(x[:512], book)
        ours, bare = 0.0, 0.0
        for _ in range(3):
            bare = max(bare, bare_kernel(a.dimension, clusters))
            began = time.perf_counter()
            nearest(x, book)
            ours = max(ours, 2e-9 * x.size * clusters / (time.perf_counter() - began))
        out[str(clusters)] = {"bare": bare, "certified": ours}
    return out


def part_spin(a: argparse.Namespace, engine: str) -> dict:
    """One pinned worker of the core test: rows a second of the bare and the certified kernel."""
    import numpy as np

    from gio_spark.kernels import Codebook, nearest

    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(engine) % len(cores)]})
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2048, a.dimension)).astype(np.float32)
    book = Codebook(rng.standard_normal((a.clusters, a.dimension)).astype(np.float32))
    scores = np.empty((512, a.clusters), dtype=np.float32)

    def bare() -> None:
        for start in range(0, len(x), 512):
            np.matmul(x[start : start + 512], book.centroids.T, out=scores)

    def rate(work, seconds: float) -> float:
        work()
        rows, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            work()
            rows += len(x)
        return rows / (time.perf_counter() - began)

    return {"bare": rate(bare, 4), "rate": rate(lambda: nearest(x, book), 4)}


def part_mllib(a: argparse.Namespace, engine: str) -> dict:
    """MLlib's fit, its block solver and its quickest start."""
    import numpy as np
    from pyspark.ml.clustering import KMeans
    from pyspark.ml.functions import array_to_vector
    from pyspark.sql import functions as F

    from gio_spark.engine import session

    # MLlib computes in the JVM: it gets the optimising compiler, which our own runs do without.
    spark = session("spark", **{"spark.driver.extraJavaOptions": "-XX:+UseParallelGC"})
    path = dataset(a.data, a.mllib_rows, a.dimension)
    x = matrix(path)
    lists = str(Path(a.data) / f"lists-{a.mllib_rows}-{a.dimension}")
    if not Path(lists).exists():
        import pyarrow as pa
        import pyarrow.parquet as pq

        Path(lists).mkdir()
        flat = pa.array(x.reshape(-1))
        offsets = pa.array(np.arange(len(x) + 1, dtype=np.int32) * a.dimension)
        table = pa.table({"vector": pa.ListArray.from_arrays(offsets, flat)})
        pq.write_table(table, f"{lists}/part.parquet", compression="none")
    df = spark.read.parquet(lists).select(array_to_vector(F.col("vector")).alias("features"))
    df.limit(10).count()
    curve = []
    for steps in sorted({1, a.iterations // 3 or 1, a.iterations}):
        fit = KMeans(k=a.clusters, maxIter=steps, seed=1, solver="block", initMode="random")
        began = time.perf_counter()
        model = fit.fit(df)
        took = time.perf_counter() - began
        centres = np.array(model.clusterCenters(), dtype=np.float32)
        curve.append({"iterations": steps, "seconds": took, "inertia": inertia(x, centres)})
    return {"curve": curve}


def part_fit(a: argparse.Namespace, engine: str, rows: int | None = None) -> dict:
    """Our fit, with the time and the inertia after each pass."""
    from gio_spark.engine import session
    from gio_spark.quantize import MiniBatchKMeans

    spark = session(engine)
    rows = rows or a.mllib_rows
    path = dataset(a.data, rows, a.dimension)
    df = spark.read.parquet(path)
    df.limit(10).count()
    states, times = [], []

    def keep(state) -> None:
        states.append(state.centroids)
        times.append(time.perf_counter() - began)

    began = time.perf_counter()
    MiniBatchKMeans(k=a.clusters, seed=1).fit(df, on_pass=keep)
    total = time.perf_counter() - began
    x = matrix(path, 100_000)
    curve = [
        {"pass": i, "seconds": t, "inertia": inertia(x, c)}
        for i, (t, c) in enumerate(zip(times, states, strict=True))
    ]
    return {"curve": curve, "seconds": total}


def part_fit_large(a: argparse.Namespace, engine: str) -> dict:
    """The same on the rows that faiss gets."""
    return part_fit(a, engine, a.rows)


def part_faiss(a: argparse.Namespace, engine: str) -> dict:
    """faiss-cpu's fit on all cores."""
    import faiss

    path = dataset(a.data, a.rows, a.dimension)
    x = matrix(path)
    faiss.omp_set_num_threads(a.cores)
    fit = faiss.Kmeans(a.dimension, a.clusters, niter=a.iterations, seed=1)
    began = time.perf_counter()
    fit.train(x)
    took = time.perf_counter() - began
    return {"seconds": took, "inertia": inertia(x[:100_000], fit.centroids)}


def part_assign(a: argparse.Namespace, engine: str) -> dict:
    """Assignment inside the engine, scan and write included, beside the bare kernel."""
    import numpy as np

    from gio_spark.engine import session
    from gio_spark.quantize import assign

    spark = session(engine)
    path = dataset(a.data, a.rows, a.dimension)
    df = spark.read.parquet(path)
    out: dict = {}
    for clusters in (a.clusters, a.kernel_clusters):
        centroids = np.ascontiguousarray(matrix(path, clusters))
        if not out:  # workers start and read once before anything is timed
            assign(df.limit(20_000), centroids).write.mode("overwrite").parquet(f"{path}-warm")
        before = bare_kernel(a.dimension, clusters)
        began = time.perf_counter()
        assign(df, centroids, two_level=False).write.mode("overwrite").parquet(f"{path}-out")
        took = time.perf_counter() - began
        bare = (before + bare_kernel(a.dimension, clusters)) / 2
        rate = 2e-9 * a.rows * a.dimension * clusters / took / a.cores
        out[str(clusters)] = {"seconds": took, "per_core": rate, "bare": bare}
    if engine == "embedded":
        centroids = np.ascontiguousarray(matrix(path, a.clusters))
        began = time.perf_counter()
        one = assign(df.coalesce(1), centroids)
        one.write.mode("overwrite").parquet(f"{path}-out")
        out["one_partition_seconds"] = time.perf_counter() - began
    return out


def part_scaling(a: argparse.Namespace, engine: str) -> dict:
    """Fit (three passes), assignment and statistics over the number of rows."""
    from gio_spark.engine import session
    from gio_spark.quantize import MiniBatchKMeans, cluster_stats, forecast

    spark = session(engine)
    points = []
    for rows in (int(r) for r in a.scaling.split(",")):
        path = dataset(a.data, rows, a.scaling_dimension)
        df = spark.read.parquet(path)
        if not points:
            MiniBatchKMeans(k=16, seed=1, max_iter=1).fit(df.limit(2000))
        began = time.perf_counter()
        # Batches of a fixed share, so that the work is the same multiple of the rows.
        fit = MiniBatchKMeans(
            k=a.scaling_clusters, seed=1, max_iter=3, patience=9, batch_rows=rows // 5
        )
        model = fit.fit(df, rows=rows)
        model.transform(df).write.mode("overwrite").parquet(f"{path}-out")
        cluster_stats(spark.read.parquet(f"{path}-out"), a.scaling_clusters)
        took = time.perf_counter() - began
        points.append(
            {"rows": rows, "seconds": took, "driver_mb": rss(), "worker_mb": worker_peak()}
        )
    need = forecast(a.scaling_clusters, a.scaling_dimension)
    return {"points": points, "forecast_worker_mb": need.worker / 2**20}


def part_big(a: argparse.Namespace, engine: str) -> dict:
    """Very many clusters through two levels."""
    from gio_spark.engine import session
    from gio_spark.quantize import MiniBatchKMeans, cluster_stats, forecast

    spark = session(engine)
    path = dataset(a.data, a.big_rows, a.dimension)
    df = spark.read.parquet(path)
    began = time.perf_counter()
    fit = MiniBatchKMeans(k=a.big_clusters, seed=1, max_iter=a.big_passes)
    model = fit.fit(df, rows=a.big_rows)
    fitted = time.perf_counter() - began
    model.transform(df).write.mode("overwrite").parquet(f"{path}-out")
    took = time.perf_counter() - began
    stats = cluster_stats(spark.read.parquet(f"{path}-out"), len(model.centroids))
    need = forecast(a.big_clusters, a.dimension, two_level=True)
    return {
        "clusters": len(model.centroids),
        "fit_seconds": fitted,
        "seconds": took,
        "agreement": model.summary.agreement,
        "rows": int(stats.rows.sum()),
        "process_mb": rss(),
        "forecast_mb": (need.driver + a.cores * need.worker) / 2**20,
    }


# --- the run ----------------------------------------------------------------------------------


def run_part(a: argparse.Namespace, part: str, engine: str = "", wait: bool = True):
    """Run one part in a process of its own; one BLAS thread each."""
    out = tempfile.mktemp(suffix=".json", dir=a.data)  # noqa: S306 - our own folder
    options = vars(a) | {"worker": f"{part}:{engine}:{out}"}
    command = [sys.executable, __file__]
    for name, value in options.items():
        if value is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    env = dict(os.environ, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    if part == "faiss":
        env |= {"OPENBLAS_NUM_THREADS": str(a.cores), "OMP_NUM_THREADS": str(a.cores)}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")])
    child = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)

    def result() -> dict | None:
        _, errors = child.communicate()
        if child.returncode:
            last = (errors or "").strip().splitlines()
            print(f"  {part} {engine}: failed, {last[-1] if last else child.returncode}")
            return None
        return json.loads(Path(out).read_text())

    return result() if wait else result


def time_to(curve: list[dict], bound: float) -> float | None:
    """Return the seconds after which a curve is at or below a bound."""
    return next((p["seconds"] for p in curve if p["inertia"] <= bound), None)


class Table:
    """The figures, printed and written as they come."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.part = ""
        self.report = previous(path)

    def start(self, part: str, a: argparse.Namespace) -> None:
        """Begin a part: its old figures go, those of other parts stay."""
        self.part = part
        self.report["figures"] = [f for f in self.report["figures"] if f["part"] != part]
        self.report["runs"][part] = {
            "load": round(os.getloadavg()[0], 1),
            "arguments": {
                k: v for k, v in vars(a).items() if k not in ("data", "out", "worker", "parts")
            },
        }

    def add(self, figure, value, unit, anchor=None, ratio=None, bar=None, at_least=True) -> None:
        """Add one figure; `bar` is what the ratio must reach (or stay below)."""
        holds = None
        if bar is not None and ratio is not None:
            holds = bool(ratio >= bar if at_least else ratio <= bar)
        self.report["figures"].append(
            {
                "part": self.part,
                "figure": figure,
                "value": value,
                "unit": unit,
                "anchor": anchor,
                "ratio": ratio,
                "bar": bar,
                "holds": holds,
            }
        )
        shown = [figure, f"{value:,.4g} {unit}" if isinstance(value, float) else f"{value} {unit}"]
        if anchor is not None:
            shown.append(f"beside {anchor}")
        if ratio is not None:
            shown.append(f"ratio {ratio:.3g}")
        if bar is not None:
            shown.append(f"bar {bar} {'holds' if holds else 'MISSED'}")
        print("  " + " | ".join(shown), flush=True)
        # Written at once: a run that is cut short keeps what it measured.
        self.report["figures"].sort(key=lambda f: PARTS.index(f["part"]))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.report, indent=1) + "\n")


def main(argv: list[str] | None = None) -> None:
    """Run the parts asked for."""
    a = arguments(argv)
    if a.worker:
        part, engine, out = a.worker.split(":", 2)
        found = globals()[f"part_{part}"](a, engine)
        Path(out).write_text(json.dumps(found))
        os._exit(0)  # engines keep threads that are not waited for
    with tempfile.TemporaryDirectory(prefix="bench-quantize-") as folder:
        a.data = a.data or folder
        parts, table = a.parts.split(","), Table(a.out)
        engines = a.engines.split(",")
        load = os.getloadavg()[0]
        print(
            f"rows={a.rows:,} d={a.dimension} K={a.clusters:,} cores={a.cores} load={load:.1f}",
            flush=True,
        )
        for part in parts:
            print(f"{part}:", flush=True)
            table.start(part, a)
            globals()[f"show_{part}"](a, table, engines)
        print(f"written to {a.out}")


def previous(path: str) -> dict:
    """Return the last report, whose parts stay where they are not run again."""
    machine = {
        "cores": os.cpu_count(),
        "processor": processor(),
        "python": platform.python_version(),
    }
    try:
        old = json.loads(Path(path).read_text())
    except (OSError, ValueError):
        old = {}
    if old.get("machine") != machine:
        old = {}
    return {"machine": machine, "runs": old.get("runs", {}), "figures": old.get("figures", [])}


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "")


def show_kernel(a, table: Table, engines) -> None:
    """Print the certified kernel beside the bare one."""
    for clusters, found in (run_part(a, "kernel") or {}).items():
        table.add(
            f"certified kernel, one thread, K={clusters}",
            found["certified"],
            "GFLOP/s",
            f"bare numpy {found['bare']:.1f}",
            found["certified"] / found["bare"],
        )


def show_cores(a, table: Table, engines) -> None:
    """Print what a second core gives to pinned single-threaded workers, the best of three."""
    gains: list[tuple[float, float, float, float]] = []
    for _ in range(3):
        one = run_part(a, "spin", "0")
        both = [run_part(a, "spin", str(i), wait=False) for i in range(2)]
        two = [wait() for wait in both]
        if one and all(two):
            rate, bare = (sum(t[key] for t in two) for key in ("rate", "bare"))
            gains.append((rate / one["rate"], rate, one["rate"], bare / one["bare"]))
    if gains:
        gain, rate, alone, _ = max(gains)
        table.add(
            "pinned kernel workers, one core to two",
            rate,
            "rows/s",
            f"one core {alone:.0f}; a bare numpy product gains {max(g[3] for g in gains):.2f}",
            gain,
            1.8,
        )


def show_mllib(a, table: Table, engines) -> None:
    """Print the time to MLlib's inertia plus 1 %."""
    theirs = run_part(a, "mllib", "spark")
    if theirs is None:
        return
    print("  MLlib (block solver, random start):", [_point(p) for p in theirs["curve"]])
    last = theirs["curve"][-1]
    for engine in engines:
        ours = run_part(a, "fit", engine)
        if ours is None:
            continue
        print(f"  ours on {engine}:", [_point(p) for p in ours["curve"]])
        reached = time_to(ours["curve"], 1.01 * last["inertia"])
        table.add(
            f"time to MLlib's inertia + 1 %, {a.mllib_rows} rows, {engine}",
            reached if reached is not None else ours["seconds"],
            "s" if reached is not None else "s, not reached",
            f"MLlib maxIter={last['iterations']} {last['seconds']:.1f} s",
            last["seconds"] / reached if reached is not None else 0.0,
            20,
        )


def _point(p: dict) -> str:
    return f"{p['seconds']:.1f}s {p['inertia']:.5g}"


def show_faiss(a, table: Table, engines) -> None:
    """Print our fit beside faiss-cpu's."""
    theirs = run_part(a, "faiss")
    if theirs is None:
        return
    for engine in engines:
        ours = run_part(a, "fit_large", engine)
        if ours is None:
            continue
        print(f"  ours on {engine}:", [_point(p) for p in ours["curve"]])
        reached = time_to(ours["curve"], 1.01 * theirs["inertia"])
        table.add(
            f"time to faiss-cpu's inertia + 1 %, {a.rows} rows, {engine}",
            reached if reached is not None else ours["seconds"],
            "s" if reached is not None else "s, not reached",
            f"faiss {theirs['seconds']:.1f} s, inertia {theirs['inertia']:.5g}",
            (reached or math.inf) / theirs["seconds"],
            1.5,
            at_least=False,
        )


def show_assign(a, table: Table, engines) -> None:
    """Print assignment inside the engine per core beside the bare kernel."""
    for engine in engines:
        found = run_part(a, "assign", engine)
        if found is None:
            continue
        alone = found.pop("one_partition_seconds", None)
        for clusters, one in found.items():
            table.add(
                f"assignment with scan and write, K={clusters}, {engine}, per core",
                one["per_core"],
                "GFLOP/s",
                f"bare kernel {one['bare']:.1f}; {one['seconds']:.1f} s in all",
                one["per_core"] / one["bare"],
                0.6 if int(clusters) == a.kernel_clusters else None,
            )
        if alone is not None:
            both = found[str(a.clusters)]["seconds"]
            table.add(
                f"assignment end to end, one partition to all cores, {engine}",
                both,
                "s",
                f"one partition {alone:.1f} s",
                alone / both,
            )


def show_scaling(a, table: Table, engines) -> None:
    """Print the exponent of time over rows, and memory."""
    import numpy as np

    for engine in engines:
        found = run_part(a, "scaling", engine)
        if found is None:
            continue
        points = found["points"]
        print("  ", [(p["rows"], round(p["seconds"], 1), round(p["driver_mb"])) for p in points])
        slope = np.polyfit(
            np.log([p["rows"] for p in points]), np.log([p["seconds"] for p in points]), 1
        )[0]
        table.add(
            f"exponent of time over rows, {a.scaling} rows, {engine}",
            float(slope),
            "",
            "1 is linear",
            float(slope),
            1.1,
            at_least=False,
        )
        if engine == "spark":  # on the embedded engine driver and workers are one process
            grown = points[-1]["driver_mb"] / points[0]["driver_mb"]
            table.add(
                "driver peak, most rows over fewest",
                points[-1]["driver_mb"],
                "MB",
                f"{points[0]['driver_mb']:.0f} MB",
                grown,
                1.3,
                at_least=False,
            )
            base = 250.0  # a Python worker with numpy, scipy and pyarrow loaded
            table.add(
                "worker peak over forecast (plus 250 MB for the interpreter)",
                points[-1]["worker_mb"],
                "MB",
                f"forecast {found['forecast_worker_mb']:.0f} MB",
                points[-1]["worker_mb"] / (found["forecast_worker_mb"] + base),
                1.0,
                at_least=False,
            )


def show_big(a, table: Table, engines) -> None:
    """Print the figures of very many clusters."""
    found = run_part(a, "big", engines[0])
    if found is None:
        return
    table.add(
        f"K={found['clusters']} on {found['rows']} rows, fit and assignment, {engines[0]}",
        found["seconds"],
        "s",
        f"fit {found['fit_seconds']:.1f} s",
    )
    table.add(
        "two levels against exact assignment",
        found["agreement"]["agreement"],
        "share of rows",
        f"inertia above exact {found['agreement']['excess']:.4f}",
    )
    table.add(
        "process peak over forecast (driver and workers in one process)",
        found["process_mb"],
        "MB",
        f"forecast {found['forecast_mb']:.0f} MB",
        found["process_mb"] / (found["forecast_mb"] + 400.0),
        1.0,
        at_least=False,
    )


if __name__ == "__main__":
    main()
