"""The parts of bench_quantize, each run in a process of its own: Spark's two APIs cannot share one.

Every function takes the arguments of the program and an engine (or another word), and returns plain
values.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import time
from pathlib import Path

from quantize_data import files, inertia, make, matrix


def sizes(a: argparse.Namespace) -> list[int]:
    """Return every number of rows that the run reads."""
    scaling = [int(rows) for rows in a.scaling.split(",")]
    return [a.rows, a.mllib_rows, a.big_rows, a.end_rows, *scaling]


def paths(a: argparse.Namespace, rows: int) -> list[str]:
    """Return the files of the first `rows` rows."""
    return files(a.data, a.dimension, sizes(a), rows)


def part_data(a: argparse.Namespace, word: str) -> dict:
    """Write the rows that the part `word` reads."""
    wanted = {
        "mllib": a.mllib_rows,
        "faiss": a.rows,
        "assign": a.rows,
        "cores": a.end_rows,
        "scaling": max(int(rows) for rows in a.scaling.split(",")),
        "big": a.big_rows,
    }
    if word in wanted:
        make(a.data, a.dimension, sizes(a), wanted[word], a.cores)
    return {}


def rss() -> float:
    """Return this process's peak memory in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peaks() -> dict[str, float]:
    """Return the peak memory in MB of this process's Python workers (the largest) and its JVM."""
    best = {"worker": 0.0, "jvm": 0.0}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
            kind = "worker" if b"pyspark" in line and b"daemon" in line else "jvm"
            if (kind == "jvm" and b"java" not in line.split(b"\0")[0]) or not _ours(folder):
                continue
            for entry in (folder / "status").read_text().splitlines():
                if entry.startswith("VmHWM"):
                    best[kind] = max(best[kind], int(entry.split()[1]) / 1024)
        except OSError:
            continue
    return best


def _ours(folder: Path) -> bool:
    """Tell whether a process descends from this one."""
    while folder.name not in ("0", "1"):
        if folder.name == str(os.getpid()):
            return True
        # The name in brackets may hold spaces; the parent stands two words after it.
        folder = folder.parent / (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
    return False


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


def part_spin(a: argparse.Namespace, word: str) -> dict:
    """One pinned worker of the core test; `word` is its core and when to begin.

    What it needs is made before that moment, so that workers that run together begin together. The
    share of the core that it got is measured too: a rate on a shared core says nothing.
    """
    import numpy as np

    from gio_spark.kernels import Codebook, nearest

    core, begin = word.split("@")
    os.sched_setaffinity(0, {int(core)})
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2048, a.dimension)).astype(np.float32)
    book = Codebook(rng.standard_normal((a.clusters, a.dimension)).astype(np.float32))
    scores = np.empty((512, a.clusters), dtype=np.float32)

    def bare() -> None:
        for start in range(0, len(x), 512):
            np.matmul(x[start : start + 512], book.centroids.T, out=scores)

    def rate(work, until: float) -> tuple[float, float]:
        rows, began, used = 0, time.time(), time.process_time()
        while time.time() < until:
            work()
            rows += len(x)
        took = time.time() - began
        return rows / took, (time.process_time() - used) / took

    bare()
    nearest(x, book)
    late = time.time() - float(begin)
    time.sleep(max(0.0, -late))
    product, _ = rate(bare, float(begin) + a.spin_seconds)
    kernel, share = rate(lambda: nearest(x, book), float(begin) + 2 * a.spin_seconds)
    return {"bare": product, "rate": kernel, "share": share, "late": late}


def part_end(a: argparse.Namespace, word: str) -> dict:
    """Assignment end to end with so many cores; `word` is the engine and their number."""
    engine, cores = word.split("@")
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: int(cores)]))
    import numpy as np

    from gio_spark.engine import session
    from gio_spark.quantize import assign

    own = {"spark.master": f"local[{cores}]"} if engine == "spark" else {}
    spark = session(engine, **own)
    names = paths(a, a.end_rows)
    centroids = np.ascontiguousarray(matrix(names, a.clusters))
    out = f"{a.data}/end-out"
    assign(spark.read.parquet(names[0]), centroids).write.mode("overwrite").parquet(out)
    began = time.perf_counter()
    assign(spark.read.parquet(*names), centroids).write.mode("overwrite").parquet(out)
    return {"seconds": time.perf_counter() - began}


def warm(spark, path: str) -> None:
    """Do a small fit, ours or MLlib's: both are timed in a session that has worked before."""
    from gio_spark.quantize import MiniBatchKMeans

    df = spark.read.parquet(path).limit(2000)
    MiniBatchKMeans(k=16, seed=1, max_iter=1, batch_rows=500).fit(df, rows=2000)


def part_mllib(a: argparse.Namespace, engine: str) -> dict:
    """MLlib's fit: the block solver (here the quicker one) and the quicker start.

    It tells no inertia on its way, so the curve is made of fits of their own.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyspark.ml.clustering import KMeans
    from pyspark.ml.functions import array_to_vector
    from pyspark.sql import functions as F

    from gio_spark.engine import session

    # MLlib computes in the JVM: it gets the optimising compiler, which our own runs do without.
    # Its cached blocks are float64: 3 GB at a million rows of 384.
    conf = {
        "spark.driver.extraJavaOptions": "-XX:+UseParallelGC",
        "spark.driver.memory": "12g",
    }
    spark = session("spark", **conf)
    x = matrix(paths(a, a.mllib_rows))
    lists = Path(a.data) / f"lists-{a.mllib_rows}-{a.dimension}"
    if not lists.exists():
        part_of = lists.with_suffix(".part")
        part_of.mkdir(exist_ok=True)
        for start in range(0, len(x), 25_000):
            part = x[start : start + 25_000]
            offsets = pa.array(np.arange(len(part) + 1, dtype=np.int32) * a.dimension)
            column = pa.ListArray.from_arrays(offsets, pa.array(part.reshape(-1)))
            pq.write_table(
                pa.table({"vector": column}), part_of / f"{start}.parquet", compression="none"
            )
        part_of.rename(lists)
    df = spark.read.parquet(str(lists)).select(array_to_vector(F.col("vector")).alias("features"))
    KMeans(k=16, maxIter=1, seed=1, solver="block", initMode="random").fit(df.limit(2000))
    curve = []
    for steps in sorted({1, a.iterations // 3 or 1, a.iterations}):
        fit = KMeans(k=a.clusters, maxIter=steps, seed=1, solver="block", initMode="random")
        began = time.perf_counter()
        model = fit.fit(df)
        took = time.perf_counter() - began
        centres = np.array(model.clusterCenters(), dtype=np.float32)
        # Over the same rows as ours.
        found = inertia(x[: a.score_rows], centres, a.cores)
        curve.append({"pass": steps, "seconds": took, "inertia": found})
    return {"curve": curve}


def part_fit(a: argparse.Namespace, word: str) -> dict:
    """Our fit, with the time from its call and the inertia after each pass."""
    from gio_spark.engine import session
    from gio_spark.quantize import MiniBatchKMeans

    engine, rows = word.split("@")
    spark = session(engine)
    names = paths(a, int(rows))
    warm(spark, names[0])
    df = spark.read.parquet(*names)
    states, times = [], []

    def keep(state) -> None:
        states.append(state.centroids)
        times.append(time.perf_counter() - began)

    began = time.perf_counter()
    MiniBatchKMeans(k=a.clusters, seed=1).fit(df, on_pass=keep)
    total = time.perf_counter() - began
    x = matrix(names, a.score_rows)
    curve = [
        {"pass": i, "seconds": t, "inertia": inertia(x, c, a.cores)}
        for i, (t, c) in enumerate(zip(times, states, strict=True))
    ]
    return {"curve": curve, "seconds": total}


def part_faiss(a: argparse.Namespace, engine: str) -> dict:
    """faiss-cpu's fit on all cores."""
    import faiss

    x = matrix(paths(a, a.rows))
    faiss.omp_set_num_threads(a.cores)
    fit = faiss.Kmeans(a.dimension, a.clusters, niter=a.iterations, seed=1)
    began = time.perf_counter()
    fit.train(x)
    took = time.perf_counter() - began
    return {"seconds": took, "inertia": inertia(x[: a.score_rows], fit.centroids, 1)}


def part_assign(a: argparse.Namespace, engine: str) -> dict:
    """Assignment inside the engine, scan and write included, beside the bare kernel."""
    import numpy as np

    from gio_spark.engine import session
    from gio_spark.quantize import assign

    spark = session(engine)
    names, to = paths(a, a.rows), f"{a.data}/assign-out"
    df = spark.read.parquet(*names)
    out: dict = {}
    for clusters in (a.clusters, a.kernel_clusters):
        centroids = np.ascontiguousarray(matrix(names, clusters))
        if not out:  # workers start and read once before anything is timed
            assign(spark.read.parquet(names[0]), centroids).write.mode("overwrite").parquet(to)
        before = bare_kernel(a.dimension, clusters)
        began = time.perf_counter()
        assign(df, centroids, two_level=False).write.mode("overwrite").parquet(to)
        took = time.perf_counter() - began
        bare = (before + bare_kernel(a.dimension, clusters)) / 2
        rate = 2e-9 * a.rows * a.dimension * clusters / took / a.cores
        out[str(clusters)] = {"seconds": took, "per_core": rate, "bare": bare}
    return out


def part_scaling(a: argparse.Namespace, engine: str) -> dict:
    """Fit (three passes), assignment and statistics over the number of rows."""
    from gio_spark.engine import session
    from gio_spark.quantize import MiniBatchKMeans, cluster_stats, forecast

    spark = session(engine)
    points = []
    to = f"{a.data}/scaling-out"
    for rows in (int(r) for r in a.scaling.split(",")):
        names = paths(a, rows)
        df = spark.read.parquet(*names)
        if not points:
            warm(spark, names[0])
        began = time.perf_counter()
        # Batches of a fixed share, so that the work is the same multiple of the rows.
        fit = MiniBatchKMeans(
            k=a.scaling_clusters, seed=1, max_iter=3, patience=9, batch_rows=rows // 5
        )
        model = fit.fit(df, rows=rows)
        model.transform(df).write.mode("overwrite").parquet(to)
        cluster_stats(spark.read.parquet(to), a.scaling_clusters)
        took = time.perf_counter() - began
        points.append({"rows": rows, "seconds": took, "driver_mb": rss(), **peaks()})
    need = forecast(a.scaling_clusters, a.dimension)
    return {"points": points, "forecast_worker_mb": need.worker / 2**20}


def part_big(a: argparse.Namespace, engine: str) -> dict:
    """Very many clusters through two levels."""
    from gio_spark.engine import session
    from gio_spark.quantize import MiniBatchKMeans, cluster_stats, forecast

    spark = session(engine)
    names, to = paths(a, a.big_rows), f"{a.data}/big-out"
    df = spark.read.parquet(*names)
    began = time.perf_counter()
    fit = MiniBatchKMeans(k=a.big_clusters, seed=1, max_iter=a.big_passes, two_level=True)
    model = fit.fit(df, rows=a.big_rows)
    fitted = time.perf_counter() - began
    model.transform(df).write.mode("overwrite").parquet(to)
    took = time.perf_counter() - began
    stats = cluster_stats(spark.read.parquet(to), len(model.centroids))
    need = forecast(a.big_clusters, a.dimension, two_level=True, rows=a.big_rows)
    return {
        "clusters": len(model.centroids),
        "fit_seconds": fitted,
        "seconds": took,
        "agreement": model.summary.agreement,
        "rows": int(stats.rows.sum()),
        "process_mb": rss(),
        **peaks(),
        "forecast_driver_mb": need.driver / 2**20,
        "forecast_worker_mb": need.worker / 2**20,
        "forecast_mb": need.together(a.cores) / 2**20,
    }
