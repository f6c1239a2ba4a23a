"""Metrics: cost of one pass, and what selection by metrics is worth on tables, weather and text.

python benchmarks/bench_gime.py --data ../shared/data [--only cost,adult,bank,weather,text]
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
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tasks import data_folder

from gio_spark import gime
from gio_spark.engine import decode_vectors, encode_vectors, map_arrow, session, ship
from gio_spark.gime.select import bounded_kl, select
from gio_spark.gime.thresholds import pursued
from gio_spark.kernels import nearest
from gio_spark.settings.gime import GimeSettings

OUT = Path(__file__).parent / "results" / "gime.json"


def figure(name, value, unit, bar=None, *, anchor=None, most=True):
    """Return one line of the results; `bar` is the largest (or smallest) value that holds."""
    holds = None if bar is None else bool(value <= bar if most else value >= bar)
    ratio = None if not anchor else value / anchor
    line = f"{name}: {value:.4g} {unit}"
    print(line if holds is None else f"{line}  ({'holds' if holds else 'MISSED'}: {bar})")
    return {"figure": name, "value": value, "unit": unit, "anchor": anchor, "ratio": ratio,
            "bar": bar, "holds": holds}  # fmt: skip


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
    shipped = ship(spark, {"book": book})

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


def ways(case, found, thresholds, signs, sizes, seeds) -> dict:
    """Subsets of every way of selecting, per size and seed."""
    n, cells = case.sample.rows.count, case.cells
    counts = np.bincount(cells)
    counted = case.sample.target["cells"]["cells"]
    target = np.zeros(len(counts))
    target[counted[0]] = counted[1]
    target /= target.sum()
    wanted = pursued(found.table, signs)
    order = np.argsort(cells, kind="stable")
    ends = np.cumsum(counts)
    result = {w: [] for w in ("random", "stratified", "gio", "gime", "gime+gio")}
    verdicts = []
    for size in sizes:
        for seed in seeds:
            rng = np.random.default_rng([size, seed])
            result["random"].append(np.sort(rng.choice(n, size, replace=False)))

            def drawn(quota, rng=rng):
                parts = [
                    rng.choice(order[e - c : e], q, replace=False)
                    for e, c, q in zip(ends, counts, quota, strict=True)
                ]
                return np.sort(np.concatenate(parts))

            none = np.zeros_like(counts)
            result["stratified"].append(drawn(bounded_kl(counts / n, none, counts, size)))
            result["gio"].append(drawn(bounded_kl(target, none, counts, size)))
            for name, mass in (("gime", None), ("gime+gio", target)):
                chosen = select(case.sample, cells, size, thresholds, wanted, signs,
                                target_mass=mass, seed=seed)  # fmt: skip
                result[name].append(chosen.rows)
                verdicts.append((name, size, chosen.verdict.passed, chosen.verdict.tries))
    return result | {"_verdicts": verdicts, "_wanted": wanted}


def learn(case, size_share, shares, seeds, settings) -> tuple[list[dict], dict]:
    """Sensitivity, thresholds, and every way of selecting compared, on one task."""
    spark = session("embedded")
    n = case.sample.rows.count
    start = time.perf_counter()
    found = gime.sensitivity(
        spark, case.sample, case.task, size=round(size_share * n), settings=settings
    )
    took = time.perf_counter() - start
    signs = case.sample.directions()
    thresholds, reached = gime.automatic(found, signs, level=0.95)
    print(f"\n== {case.name}: {n:,} rows, sensitivity {took:.0f} s, {found.models} models")
    columns = ["metrics", "class", "change", "low", "high", "spearman", "vif", "turning_point"]
    print(found.table[columns].to_string(index=False, float_format="%.4g"))
    for note in found.notes:
        print("note:", note)
    for t in thresholds:
        print(f"threshold {t.metric}: {t.direction} {t.bound:.4g} (best {t.best:.4g}, {t.kind})")
    sizes = [round(s * n) for s in shares]
    chosen = ways(case, found, thresholds, signs, sizes, range(seeds))
    verdicts, wanted = chosen.pop("_verdicts"), chosen.pop("_wanted")
    print("pursued:", wanted or "none")
    curve = gime.efficiency(spark, case.task, chosen)
    table = curve.groupby(["way", "rows"]).agg(
        score=("score", "mean"), spread=("score", "std"), seconds=("seconds", "mean"),
        of_full=("of_full", "mean"),
    )  # fmt: skip
    print(table.reset_index().sort_values(["rows", "way"]).to_string(
        index=False, float_format="%.4f"))  # fmt: skip
    figures = []
    for way in ("gime", "gio", "gime+gio"):
        paired = curve[curve["way"].isin([way, "random"])]
        for share, size in zip(shares, sizes, strict=True):
            both = paired[paired["rows"] == size]
            mine, random = (both[both["way"] == w]["score"].to_numpy() for w in (way, "random"))
            gain = mine - random
            half = 2.262 if len(gain) == 10 else 2.776
            half *= gain.std(ddof=1) / np.sqrt(len(gain))
            figures.append(figure(
                f"{case.name}, {way} over random at {share:.0%}", float(gain.mean()),
                f"{case.task.measure} (+- {half:.4f}, {len(gain)} seeds)"))  # fmt: skip
        closed = gime.gap_closed(curve, way).set_index("rows")["closed"]
        for share, size in zip(shares, sizes, strict=True):
            if np.isfinite(closed[size]):
                figures.append(figure(
                    f"{case.name}, {way}: gap random to full closed at {share:.0%}",
                    float(closed[size]), "share"))  # fmt: skip
    figures += saved(case.name, curve, found.seconds)
    full = float(curve.loc[curve["way"] == "full", "seconds"].mean())
    figures.append(figure(f"{case.name}, sensitivity runs", found.seconds, "training s",
                          anchor=full))  # fmt: skip
    passed = np.mean([v[2] for v in verdicts])
    figures.append(figure(f"{case.name}, gate passed", float(passed), "share of selections"))
    tables = {
        "sensitivity": found.table.to_dict("records"),
        "thresholds": reached.to_dict("records"),
        "curve": table.reset_index().to_dict("records"),
        "notes": list(found.notes),
        "pursued": wanted,
        "random_score": found.random_score,
        "full_score": found.full_score,
    }
    return figures, tables


def saved(name, curve, sensitivity_seconds) -> list[dict]:
    """Training time saved by selection on metrics, both ways of counting the sensitivity runs.

    Against the full pool at 99 % of its score (the published margin), and at every size against
    the random subset of equal score, read off the random subsets' curve.
    """
    mean = curve.groupby(["way", "rows"])[["score", "seconds"]].mean().reset_index()
    full = mean[mean["way"] == "full"].iloc[0]
    mine = mean[mean["way"] == "gime"].sort_values("rows")
    random = mean[mean["way"].isin(["random", "full"])].sort_values("rows")
    rising = np.maximum.accumulate(random["score"])
    figures = []
    for _, pick in mine.iterrows():
        if not rising.iloc[0] <= pick["score"] <= rising.iloc[-1]:
            continue
        equal = float(np.interp(pick["score"], rising, random["seconds"]))
        rows = float(np.interp(pick["score"], rising, random["rows"]))
        base = f"{name}, {int(pick['rows']):,} rows by gime, random subset of equal score"
        figures.append(figure(f"{base}: rows that it needs", rows, "rows",
                              anchor=float(pick["rows"])))  # fmt: skip
        figures.append(figure(f"{base}: training time saved",
                              1 - pick["seconds"] / max(equal, 1e-9), "share"))  # fmt: skip
    good = mine[mine["score"] >= 0.99 * full["score"]]
    if good.empty:
        print(f"{name}: no size tried reaches 99 % of the full pool's score")
        return figures
    pick = good.iloc[0]
    base = f"{name}, {int(pick['rows']):,} rows by gime at 99 % of full"
    whole = float(full["seconds"])
    return [
        *figures,
        figure(f"{base}: training time saved", 1 - pick["seconds"] / whole, "share"),
        figure(f"{base}: the same, sensitivity runs counted once",
               1 - (pick["seconds"] + sensitivity_seconds) / whole, "share"),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=None)
    parser.add_argument("--only", default="cost,adult,bank,weather,text")
    parser.add_argument("--rows", type=int, default=240_000, help="rows of the cost measurement")
    parser.add_argument("--seeds", type=int, default=10)
    given = parser.parse_args()
    kept = json.loads(OUT.read_text()) if OUT.exists() else {"parts": {}}
    settings = GimeSettings(screen=36, levels=5, seeds=3)
    makers = {
        "adult": lambda d: gime_tasks.tabular(d, "adult"),
        "bank": lambda d: gime_tasks.tabular(d, "bank"),
        "weather": gime_tasks.weather,
        "text": gime_tasks.text,
    }
    for part in given.only.split(","):
        if part == "cost":
            kept["parts"][part] = {"figures": cost(given.rows)}
        else:
            case = makers[part](data_folder(given.data))
            shares = (0.05, 0.1, 0.25) if part in ("weather", "bank") else (0.05, 0.1, 0.25, 0.5)
            figures, tables = learn(case, 0.05, shares, given.seeds, settings)
            kept["parts"][part] = {"figures": figures, "tables": tables}
        kept["machine"] = {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "numpy": np.__version__,
        }
        kept["figures"] = [f for p in kept["parts"].values() for f in p["figures"]]
        OUT.parent.mkdir(exist_ok=True)
        OUT.write_text(json.dumps(_plain(kept), indent=1) + "\n")
    print(f"written {OUT}")


def _plain(value):
    """Make values fit for JSON: numbers of numpy, NaN as null."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and pd.isna(value) else value


if __name__ == "__main__":
    main()
