"""Real tasks for benchmarks: a pool and a target written as Parquet, made from public data sets.

The data folder is an argument or GIO_SPARK_DATA; nothing of it is part of the project.
"""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

TARGET_DOMAINS = {"banking77": 700, "wikidump": 700, "novel_dickens": 600}


@dataclass(frozen=True)
class Task:
    """A pool, a target and held-out rows of the target's law."""

    name: str
    pool: Path
    target: Path
    held_out: Path
    columns: dict


def data_folder(given: str | None) -> Path:
    """Return the data folder, or stop with one line that says how to name it."""
    folder = given or os.environ.get("GIO_SPARK_DATA")
    if not folder or not Path(folder).is_dir():
        raise SystemExit("Name the data folder: --data PATH or GIO_SPARK_DATA=PATH.")
    return Path(folder)


def text_task(data: Path, out: Path, seed: int = 0) -> Task:
    """205,808 texts; target: a mixture of three domains, its rows taken out of the pool."""
    file = next((data / "text_pool").glob("*.tsv.gz"))
    rows = pd.read_csv(file, sep="\t", quoting=3, keep_default_na=False)
    rows.insert(0, "id", [f"t{i}" for i in range(len(rows))])
    rng = np.random.default_rng(seed)
    target, held = [], []
    for domain, count in TARGET_DOMAINS.items():
        own = rng.permutation(np.flatnonzero(rows["domain"].to_numpy() == domain))
        target.append(own[:count])
        held.append(own[count : 2 * count])
    out.mkdir(parents=True, exist_ok=True)
    picked = {"target": np.concatenate(target), "held_out": np.concatenate(held)}
    parts = {name: rows.iloc[np.sort(at)] for name, at in picked.items()}
    parts["pool"] = rows.drop(index=np.concatenate(list(picked.values())))
    paths = {}
    for name, part in parts.items():
        paths[name] = out / f"{name}.parquet"
        table = pa.Table.from_pandas(part, preserve_index=False)
        pq.write_table(table, paths[name], row_group_size=1 << 15)
    columns = {"id": "id", "text": "text", "source": "domain"}
    return Task("text", paths["pool"], paths["target"], paths["held_out"], columns)


def _idx(path: Path, offset: int) -> np.ndarray:
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8, offset=offset)


def image_task(data: Path, out: Path, seed: int = 0) -> Task:
    """Fashion-MNIST, two thirds of the pool dimmed and noisy with half of their labels random."""
    folder = data / "fashion_mnist"
    images = _idx(folder / "train-images-idx3-ubyte.gz", 16).reshape(-1, 784)
    labels = _idx(folder / "train-labels-idx1-ubyte.gz", 8).copy()
    test = _idx(folder / "t10k-images-idx3-ubyte.gz", 16).reshape(-1, 784)
    test_labels = _idx(folder / "t10k-labels-idx1-ubyte.gz", 8)
    rng = np.random.default_rng(seed)
    bad = rng.random(len(images)) < 2 / 3
    scale = rng.uniform(0.2, 0.6, len(images))[:, None]
    noise = rng.uniform(0, 0.5, images.shape)
    damaged = np.clip(images / 255.0 * scale + noise, 0, 1) * 255
    pixels = np.where(bad[:, None], damaged, images).astype(np.uint8)
    wrong = bad & (rng.random(len(images)) < 0.5)
    labels[wrong] = rng.integers(0, 10, int(wrong.sum()))
    order = rng.permutation(len(test))
    half = len(test) // 2
    out.mkdir(parents=True, exist_ok=True)
    parts = {
        "pool": (pixels, labels, np.where(bad, "damaged", "clean"), "p"),
        "target": (test[order[:half]], test_labels[order[:half]], np.full(half, "clean"), "t"),
        "held_out": (test[order[half:]], test_labels[order[half:]], np.full(half, "clean"), "h"),
    }
    paths = {}
    for name, (array, label, state, letter) in parts.items():
        flat = pa.array(array.astype(np.float32).reshape(-1) / np.float32(255))
        offsets = pa.array(np.arange(0, array.size + 1, 784, dtype=np.int32))
        table = pa.table(
            {
                "id": [f"{letter}{i}" for i in range(len(array))],
                "pixels": pa.ListArray.from_arrays(offsets, flat),
                "label": label.astype(np.int64),
                "state": state,
            }
        )
        paths[name] = out / f"{name}.parquet"
        pq.write_table(table, paths[name], row_group_size=1 << 13)
    columns = {"id": "id", "image": "pixels", "source": "state", "label": "label"}
    return Task("images", paths["pool"], paths["target"], paths["held_out"], columns)


TASKS = {"text": text_task, "images": image_task}
