"""Metrics: cost of one pass, and what selection by metrics is worth on tables, weather and text.

    python benchmarks/bench_gime.py --data ../shared/data [--seeds 10] [--store FOLDER]
        [--only cost,adult,bank,shoppers,weather,text] [--minutes 60] [--show]

Each seed of a task is kept under --store as it finishes, and a rerun does what is missing. Prints
tables and figures, and puts each part into benchmarks/results/gime.json beside the others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import gime_tasks
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from gime_figures import figure, summarise
from gime_study import folder_of, plain, study
from tasks import data_folder

from gio_spark import gime
from gio_spark.engine import broadcast_arrays, decode_vectors, encode_vectors, map_arrow, session
from gio_spark.kernels import nearest
from gio_spark.settings.gime import GimeSettings

OUT = Path(__file__).parent / "results" / "gime.json"
MAKERS = {
    **{
        name: lambda data, limit, name=name: gime_tasks.tabular(data, name, limit=limit)
        for name in gime_tasks.TABLES
    },
    "weather": lambda data, limit: gime_tasks.weather(data, blocks=limit or 1000),
    "text": lambda data, limit: gime_tasks.text(data, limit=limit),
}


def default_store() -> Path:
    """Return the user's cache folder for finished seeds: never inside the project."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "gio-spark" / "gime"


def cost(rows: int) -> list[dict]:
    """All eleven metrics by source, against a scan with assignment of the same vectors."""
    d, k = 256, 1500
    rng = np.random.default_rng(0)
    spark = session("embedded")
    folder = tempfile.mkdtemp()
    for part in range(4):
        m = rows // 4
        x = rng.standard_normal((m, d)).astype(np.float32)
        times = rng.integers(0, 10**14, m)
        stamp = pa.timestamp("us", tz="UTC")
        table = pa.table(
            {
                "id": [f"r{part}-{i}" for i in range(m)],
                "vector": encode_vectors(x / np.linalg.norm(x, axis=1, keepdims=True)),
                "source": rng.choice(list("abc"), m),
                "content_hash": [f"{part}-{i}" for i in range(m)],
                "tokens": rng.integers(1, 99, m),
                "quality": rng.random(m),
                "event_time": pa.array(times).cast(stamp),
                "ingest_time": pa.array(times + rng.integers(0, 10**11, m)).cast(stamp),
            }
        )
        pq.write_table(table, f"{folder}/p{part}.parquet", row_group_size=16_384)
    book = rng.standard_normal((k, d)).astype(np.float32)
    book /= np.linalg.norm(book, axis=1, keepdims=True)
    probes = rng.standard_normal((128, d)).astype(np.float32)
    df = spark.read.parquet(folder)
    shipped = broadcast_arrays(spark, {"book": book})

    def assign(batches):
        centroids = shipped.load()["book"]
        for batch in batches:
            cluster, distance = nearest(decode_vectors(batch.column("vector")), centroids)
            yield {"n": [len(cluster)], "total": [float(distance.sum())]}

    def timed(work):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        return time.perf_counter() - wall, time.process_time() - cpu

    runs = []
    for _ in range(4):
        plain = timed(
            lambda: map_arrow(df.select("id", "vector"), assign, "n bigint, total double").toArrow()
        )
        full = timed(lambda: gime.metrics(df, by="source", codebook=book, probes=probes).toArrow())
        runs.append((plain, full))
    best = np.array(runs).min(axis=0)
    (plain, plain_cpu), (full, full_cpu) = best
    return [
        figure(f"scan and assignment of {rows:,} x {d} to {k} cells", plain, "s"),
        figure("the same with all eleven metrics by source", full, "s", anchor=plain),
        figure("  wall time, times the scan's", full / plain, "", 1.5),
        figure("  processor time, times the scan's", full_cpu / plain_cpu, "", 1.5),
    ]


def main() -> None:
    """Do what is missing, print, and put the parts into the results file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=None)
    parser.add_argument("--only", default="cost,adult,bank,shoppers,weather,text")
    parser.add_argument("--rows", type=int, default=240_000, help="rows of the cost measurement")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--store", type=Path, default=default_store())
    parser.add_argument("--minutes", type=float, default=1e9, help="start nothing after so many")
    parser.add_argument("--limit", type=int, default=None, help="rows (or blocks) of a task's pool")
    parser.add_argument("--show", action="store_true", help="compute nothing")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    wanted = given.only.split(",")
    unknown = sorted(set(wanted) - {"cost", *MAKERS})
    if unknown:
        raise SystemExit(f"Unknown part(s) {', '.join(unknown)}; known: cost, {', '.join(MAKERS)}.")
    settings = GimeSettings(screen=36, levels=5, seeds=3)
    stop = time.monotonic() + (0 if given.show else 60 * given.minutes)
    for part in wanted:
        began = time.perf_counter()
        if part == "cost":
            if time.monotonic() < stop:
                merge(given.out, part, {"figures": cost(given.rows)})
            continue
        folder = folder_of(given.store, part, settings, given.limit)
        learnt, lines = study(
            session("embedded"),
            lambda part=part: MAKERS[part](data_folder(given.data), given.limit),
            part, folder, given.seeds, settings, stop,
        )  # fmt: skip
        if learnt is None or lines.empty:
            print(f"{part}: nothing is there yet")
            continue
        figures, tables = summarise(part, learnt, lines)
        seeds = int(lines["seed"].nunique())
        merge(given.out, part, {"figures": figures, "tables": tables, "seeds": seeds})
        print(f"{part}: {seeds} seeds, {(time.perf_counter() - began) / 60:.1f} min", flush=True)


def merge(out: Path, part: str, found: dict) -> None:
    """Put a part into the results file, in place of what it held of that part alone."""
    kept = json.loads(out.read_text()) if out.exists() else {"parts": {}}
    machine = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    kept["parts"][part] = {**plain(found), "machine": machine}
    kept["machine"] = machine
    kept["figures"] = [f for p in kept["parts"].values() for f in p["figures"]]
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"written {out} ({part})", flush=True)


if __name__ == "__main__":
    main()
