"""A small dataset in which a third of the pool is like the target, and its pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from gio_spark.strategy.evaluation_dataset import EvaluationDataset

WORDS = np.array(["red", "green", "blue", "house", "mouse", "tree"])


def random_text(rng: np.random.Generator, kinds: int) -> str:
    """Random text of six words out of the first `kinds`."""
    return " ".join(WORDS[rng.integers(0, kinds, 6)])


def small_dataset(rows: int = 400, *, seed: int = 0, **changes: Any) -> EvaluationDataset:
    """Dataset of four dimensions with texts, labels and an oracle."""
    rng = np.random.default_rng(seed)
    good = np.arange(rows) % 3 == 0
    vectors = rng.standard_normal((rows, 4)).astype(np.float32)
    vectors[~good, 1:] += 1.0
    labels = (vectors[:, 0] > 0).astype(np.int64)
    labels[~good] = 1 - labels[~good]
    target, held = (rng.standard_normal((n, 4)).astype(np.float32) for n in (80, 120))
    centroids = vectors[:12].copy()
    cluster = np.argmin(((vectors[:, None] - centroids) ** 2).sum(2), axis=1).astype(np.int32)
    target_count = np.bincount(
        np.argmin(((target[:, None] - centroids) ** 2).sum(2), axis=1), minlength=12
    )
    fields: dict[str, Any] = {
        "vectors": vectors,
        "hashes": np.sort(rng.integers(0, 2**63, rows).astype(np.uint64)),
        "target_vectors": target,
        "centroids": centroids,
        "cluster": cluster,
        "target_mass": target_count / target_count.sum(),
        "held_vectors": held,
        "texts": pa.array([random_text(rng, 2 if g else 6) for g in good]),
        "target_texts": pa.array([random_text(rng, 2) for _ in target]),
        "held_texts": pa.array([random_text(rng, 2) for _ in held]),
        "labels": labels,
        "held_labels": (held[:, 0] > 0).astype(np.int64),
        "good": good.astype(np.float64),
    }
    return EvaluationDataset(**{**fields, **changes})
