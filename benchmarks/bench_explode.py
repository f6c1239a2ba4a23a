"""Explode: exact thresholds of 5M rows with heavy ties, and the text ratio of 200,000 texts.

    python benchmarks/bench_explode.py [--rows 5000000] [--texts 200000] [--data FOLDER]

The texts come from FOLDER/text_pool when it is given (or GIO_SPARK_DATA), else they are made up.
Everything on the embedded engine. The anchor of the map pass is scikit-learn's HashingVectorizer
making the same n-grams in one process. Prints a table and writes benchmarks/results/explode.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.feature_extraction.text import HashingVectorizer

from gio_spark.engine import session
from gio_spark.explode import (
    fit_ratio,
    ratio_keys,
    score,
    selected_ids,
    thresholds_of_arrays,
    with_thresholds,
)
from gio_spark.explode.rank_keys import HASH_RANGE, passes_threshold
from gio_spark.settings.explode import ExplodeSettings

CLUSTERS = 1_500


def figure(
    name: str,
    value: float,
    unit: str,
    bar: float,
    *,
    most: bool = True,
    anchor: float | None = None,
) -> dict:
    holds = value <= bar if most else value >= bar
    beside = f", {value / anchor:.1f} times {anchor:,.0f}" if anchor else ""
    verdict = "holds" if holds else "FAILS"
    print(f"{name:58s} {value:12.3f} {unit:8s} bar {bar:g}  {verdict}{beside}")
    return {
        "figure": name, "value": value, "unit": unit, "anchor": anchor,
        "ratio": value / anchor if anchor else None,
        "bar": bar, "holds": bool(holds),
    }  # fmt: skip


def in_arrays(rows: int) -> list[dict]:
    rng = np.random.default_rng(0)
    cluster = (rng.pareto(1.0, rows) * 20).astype(np.int64) % CLUSTERS
    size = np.bincount(cluster, minlength=CLUSTERS)
    take = (size * rng.random(CLUSTERS)).astype(np.int64)
    ties = rng.integers(0, HASH_RANGE, rows)
    out = []
    for what, keys in (
        ("ratios of three values", ratio_keys(rng.integers(0, 3, rows), ties[::-1], temperature=0)),
        ("keys of three values", rng.integers(0, 3, rows)),
        ("noisy ratios", ratio_keys(rng.normal(size=rows), ties[::-1], temperature=0.25)),
    ):
        start = time.perf_counter()
        found = thresholds_of_arrays(cluster, keys, ties, take)
        seconds = time.perf_counter() - start
        chosen = passes_threshold(keys, ties, found.threshold[cluster], found.tie[cluster])
        wrong = int((np.bincount(cluster[chosen], minlength=CLUSTERS) != take).sum())
        out.append(figure(f"{rows:,} rows in arrays, {what}: seconds", seconds, "s", 60))
        out.append(figure(f"  passes {found.passes}; clusters with a wrong count", wrong, "", 0))
    return out


def on_engine(rows: int) -> list[dict]:
    from pyspark.sql import functions as F

    spark = session("embedded")
    mixed = F.shiftrightunsigned(F.xxhash64(F.col("id"), F.lit("bench")), 11)
    table = spark.range(rows).select(
        F.col("id").cast("string").alias("id"),
        (mixed % CLUSTERS).cast("int").alias("cluster"),
        (F.shiftright(mixed, 20) % 3).cast("float").alias("log_ratio"),
    )
    size = table.groupBy("cluster").count().toPandas().sort_values("cluster")
    rng = np.random.default_rng(1)
    plan = pd.DataFrame({"cluster": size["cluster"], "rows": size["count"]})
    plan["take"] = (plan["rows"] * rng.random(len(plan))).astype(int)
    chosen = ExplodeSettings(within_cluster="density_ratio", temperature=0.0)
    start = time.perf_counter()
    full = with_thresholds(table, plan, settings=chosen)
    found = time.perf_counter()
    counts = selected_ids(table, full, settings=chosen).groupBy("cluster").count().toPandas()
    end = time.perf_counter()
    both = plan.merge(counts, on="cluster", how="left").fillna({"count": 0})
    wrong = int((both["take"] != both["count"]).sum())
    return [
        figure(f"{rows:,} rows on the engine: thresholds", found - start, "s", 60),
        figure(f"{rows:,} rows on the engine: kept rows, counted", end - found, "s", 60),
        figure("  clusters with a wrong count", wrong, "", 0),
    ]


def texts(count: int, data: Path | None) -> pd.DataFrame:
    file = data / "text_pool" / "text_pool_open.tsv.gz" if data else None
    if file and file.exists():
        frame = pd.read_csv(file, sep="\t", quoting=3, keep_default_na=False)
        return frame.sample(min(count, len(frame)), random_state=0)
    rng = np.random.default_rng(2)
    words = np.array(["".join(rng.choice(list("etaoinshrdlu"), 5)) for _ in range(5_000)])
    half = rng.random(count) < 0.1
    pick = np.where(
        half[:, None], rng.integers(0, 4_000, (count, 14)), rng.integers(1_000, 5_000, (count, 14))
    )
    return pd.DataFrame(
        {"domain": np.where(half, "banking77", "other"), "text": [" ".join(words[p]) for p in pick]}
    )


def text_ratio(count: int, data: Path | None) -> list[dict]:
    frame = texts(count + 8_000, data)
    is_target = frame["domain"].isin(["banking77", "wikidump"]).to_numpy()
    is_target &= np.cumsum(is_target) <= 8_000
    spark = session("embedded")

    def table(part: pd.DataFrame) -> object:
        return spark.createDataFrame(
            pa.table(
                {
                    "id": [str(i) for i in part.index],
                    "text": part["text"].to_numpy(),
                    "cluster": np.zeros(len(part), dtype=np.int32),
                }
            )
        )

    target, pool = table(frame[is_target]), table(frame[~is_target])
    chosen = ExplodeSettings()
    start = time.perf_counter()
    fitted = fit_ratio(
        target,
        pool,
        content="text",
        kind="text",
        settings=chosen,
        target_rows=int(is_target.sum()),
        pool_rows=int((~is_target).sum()),
    )
    middle = time.perf_counter()
    scored = score(pool, fitted.model, content="text").selectExpr("count(log_ratio)").collect()
    end = time.perf_counter()
    rows = int(scored[0][0])
    few = frame["text"].iloc[:20_000]
    plain = HashingVectorizer(analyzer="char", ngram_range=(2, 3), n_features=1 << 18)
    start_plain = time.perf_counter()
    plain.transform(few)  # the n-grams alone, by scikit-learn's tokeniser in Python
    anchor = len(few) / (time.perf_counter() - start_plain)
    return [
        figure(f"text ratio of {rows:,} rows: fit on samples", middle - start, "s", 30),
        figure(f"text ratio of {rows:,} rows: map pass", end - middle, "s", 20),
        figure("  rows a second in the map pass", rows / (end - middle), "rows/s", 10_000,
               most=False, anchor=anchor),
        figure("text ratio in all", end - start, "s", 40),
        figure("  calibration error", fitted.calibration.error, "", 0.05),
        figure("  area under the curve", fitted.calibration.auc, "", 0.6, most=False),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--texts", type=int, default=200_000)
    parser.add_argument("--data", type=Path, default=os.environ.get("GIO_SPARK_DATA"))
    given = parser.parse_args()
    data = Path(given.data) if given.data else None
    figures = [*text_ratio(given.texts, data), *on_engine(given.rows), *in_arrays(given.rows)]
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0],
               "python": platform.python_version(), "numpy": np.__version__}  # fmt: skip
    out = Path(__file__).parent / "results" / "explode.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "figures": figures}, indent=1) + "\n")
    print(f"written {out}")


if __name__ == "__main__":
    main()
