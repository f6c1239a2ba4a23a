"""Share of good pairs among those selected from pools of which a quarter is misaligned.

    python benchmarks/bench_pairs.py --data FOLDER [--seeds 3] [--rows 20000]

FOLDER holds pairs of public data sets: JSON arrays of `instruction`, `input` and `output` (or
`response`), and files of lines that belong together, one per language (train.en, train.de). Of each
data set, pairs drawn at random are the target, the others the pool; a quarter of the pool has the
output of another row. Prints, per budget and seed, the share of rows with their own output: random
rows, k-NN retrieval (rows nearest to any target row, over the embedded text of input and output),
and the default of a run on the joined text, and with `columns.output`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gio_spark.embed import make_embedder
from gio_spark.engine.progress import Progress
from gio_spark.pipeline import run
from gio_spark.settings.columns import Columns
from gio_spark.settings.embed import EmbedSettings
from gio_spark.settings.load import build

BUDGETS = (0.025, 0.1)
COLUMNS = {
    "default, joined text": {"text": "{input}\n{output}"},
    "default, pairs": {"text": "input", "output": "output"},
}


def data_sets(folder: Path) -> dict[str, pd.DataFrame]:
    """Return the pairs of each data set: columns input and output."""
    sets = {}
    for file in sorted(folder.glob("*.json")):
        rows = json.loads(file.read_text())
        outputs = [row.get("output") or row.get("response") or "" for row in rows]
        inputs = [f"{row['instruction']} {row.get('input') or ''}".strip() for row in rows]
        sets[file.stem] = pd.DataFrame({"input": inputs, "output": outputs})
    for file in sorted(folder.glob("train.*")):
        if file.suffix == ".en":
            continue
        halves = [path.read_text().splitlines() for path in (file.with_suffix(".en"), file)]
        sets[f"en-{file.suffix[1:]}"] = pd.DataFrame({"input": halves[0], "output": halves[1]})
    return {name: rows[rows["output"].str.strip() != ""] for name, rows in sets.items()}


def misaligned(pairs: pd.DataFrame, rows: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a pool of which a quarter has the output of another row, and a target."""
    random = np.random.default_rng(seed)
    pairs = pairs.iloc[random.permutation(len(pairs))].reset_index(drop=True)
    target_rows = min(1_000, len(pairs) // 10)
    target, pool = pairs[:target_rows], pairs[target_rows : target_rows + rows].copy()
    pool.insert(0, "id", [f"p{i}" for i in range(len(pool))])
    bad = random.permutation(len(pool))[: len(pool) // 4]
    outputs = pool["output"].to_numpy().copy()
    outputs[bad] = np.roll(outputs[bad], 1)
    return pool.assign(output=outputs, good=~np.isin(np.arange(len(pool)), bad)), target


def joined_vectors(rows: pd.DataFrame) -> np.ndarray:
    """Return vectors (n, d) of input and output as one text."""
    embedder = make_embedder(EmbedSettings(), Columns(text="text"))
    texts = rows["input"] + "\n" + rows["output"]
    return embedder.embed(pa.table({"text": pa.array(texts.to_list())}))[0]


def shares(folder: Path, pool: pd.DataFrame, target: pd.DataFrame, seed: int) -> dict:
    """Return (way, budget) -> share of good rows."""
    good = pool["good"].to_numpy()
    similarity = (joined_vectors(pool) @ joined_vectors(target).T).max(axis=1)
    for name, rows in (("pool", pool), ("target", target)):
        pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), folder / f"{name}.parquet")
    result = {}
    for budget in BUDGETS:
        result["random", budget] = good.mean()
        nearest = np.argsort(-similarity, kind="stable")[: int(budget * len(pool))]
        result["k-NN, joined text", budget] = good[nearest].mean()
        for way, columns in COLUMNS.items():
            settings = build(
                {
                    "pool": {"location": str(folder / "pool.parquet"),
                             "columns": {"id": "id", **columns}},
                    "target": [{"location": str(folder / "target.parquet"), "columns": columns}],
                    "budget": budget, "seed": seed, "workspace": str(folder / "ws"),
                    "engine": "embedded", "tracking": {"enabled": False},
                }
            )  # fmt: skip
            curation = run(settings, progress=Progress("silent"), until="explode")
            result[way, budget] = float(
                np.mean(curation.selected.select("good").toPandas()["good"])
            )
    return result


def main() -> None:
    """Print a table per data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=20_000)
    options = parser.parse_args()
    for name, pairs in data_sets(options.data).items():
        by_seed = []
        for seed in range(options.seeds):
            started = time.monotonic()
            pool, target = misaligned(pairs, options.rows, seed)
            with tempfile.TemporaryDirectory() as folder:
                by_seed.append(shares(Path(folder), pool, target, seed))
            seconds = time.monotonic() - started
            print(
                f"{name} seed {seed}: {len(pool):,} pool, {len(target):,} target, {seconds:.0f} s"
            )
        table = pd.DataFrame(by_seed).T
        table["mean"] = table.mean(axis=1)
        print(f"{name}\n{table.round(3).to_string()}", flush=True)


if __name__ == "__main__":
    main()
