"""Sample of the pool on which strategies are tried, and splits of the target for judging."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gio_spark.gio.distances import blocks, squared_distances, squared_norms
from gio_spark.gio.target_mass import kernel_mass, kernel_width, nearest_clusters
from gio_spark.kernels.ngrams import code_sequences, known_share
from gio_spark.kernels.splitmix import mix64
from gio_spark.strategy.evaluation_dataset import EvaluationDataset
from gio_spark.strategy.methods.hash_draws import uniform
from gio_spark.strategy.methods.method_registry import reordered
from gio_spark.strategy.text_codes import TextCodes

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Rows of the sample; of one for a budget that would take fewer than so many rows of it; and the
#: part of the larger one that follows the target's mass.
SAMPLE_ROWS, LARGE_SAMPLE_ROWS = 20_000, 50_000
_ENOUGH_SELECTED, _TARGET_PART = 300, 0.75
#: Splits of the target that are tried at the same time; the choice does not depend on it.
MAX_THREADS = 3
#: The target is cut into so many parts, of each of which at most so many rows judge. A small target
#: is judged on three of them in turn, a large one on two.
_PARTS, _JUDGING_ROWS, _LARGE_TARGET, _SPLITS = 4, 2_000, 2_000, (3, 2)
#: Fewest target rows that candidates see, without judging rows and their near copies.
_FEWEST_TARGET_ROWS = 20
#: A row is a near copy of a judging row within this part of the usual distance between a judging
#: row and its nearest other target row, or with this share of its sequences of five words.
_COPY_DISTANCE, _COPY_SHARE, _COPY_WORDS = 0.1, 0.5, 5
#: Squared float32 distances below this part of a squared length are rounding errors.
_ROUNDING = 4e-6


@dataclass(frozen=True, eq=False)
class TargetSplit:
    """Part of the target that judges, and the dataset of the candidates, which has none of it.

    Attributes:
        dataset: Sample without near copies of judging rows, with the other target rows.
        rows: (r,) rows of the sample that the dataset holds.
        judging: (j,) target rows that judge.
    """

    dataset: EvaluationDataset
    rows: NDArray[np.int64]
    judging: NDArray[np.int64]


def is_small_budget(budget: int, pool_rows: int) -> bool:
    """Whether a budget takes too few rows of a simple random sample to judge them.

    Example:
        >>> is_small_budget(20_000, 1_000_000), is_small_budget(10_000, 1_000_000)
        (False, True)
    """
    return budget * SAMPLE_ROWS < _ENOUGH_SELECTED * pool_rows


def sampling_rates(
    sizes: NDArray[np.int64], target_mass: NDArray[np.float64], *, small_budget: bool
) -> NDArray[np.float64]:
    """Share of each cluster's rows that a sample holds, (K,).

    Usually all clusters alike, so that all rows stand for equally many. For a small budget the
    sample is larger, and three quarters of it are in proportion to the square root of target mass
    times size: among all rates for so many rows, those with the least variance of what the budget
    takes (Neyman's allocation). A cluster with too few rows is taken whole.

    Args:
        sizes: (K,) pool rows of each cluster.
        target_mass: (K,) target distribution.
        small_budget: Whether the sample is for a small budget.

    Example:
        >>> sizes, mass = np.array([900_000, 100_000]), np.array([0.1, 0.9])
        >>> sampling_rates(sizes, mass, small_budget=False).tolist()
        [0.02, 0.02]
        >>> sampling_rates(sizes, mass, small_budget=True).round(3).tolist()
        [0.033, 0.2]
    """
    size = np.asarray(sizes, np.float64)
    rows = LARGE_SAMPLE_ROWS if small_budget else SAMPLE_ROWS
    part = size / max(size.sum(), 1.0)
    if small_budget:
        geometric = np.sqrt(np.maximum(target_mass, 0.0) * size)
        part = (1 - _TARGET_PART) * part
        part += _TARGET_PART * geometric / max(geometric.sum(), 1e-300)
    whole = size <= 0
    factor = 0.0
    while not whole.all():
        factor = max(0.0, rows - size[whole].sum()) / part[~whole].sum()
        exceeded = ~whole & (factor * part >= size * (1 - 1e-12))
        if not exceeded.any():
            break
        whole |= exceeded
    return np.where(whole, 1.0, factor * part / np.maximum(size, 1.0))


def strategy_sample(
    dataset: EvaluationDataset, seed: int, *, small_budget: bool = False
) -> tuple[EvaluationDataset, NDArray[np.int64] | None]:
    """Sample of a dataset; for a small budget over-drawn in clusters where the target has mass.

    A budget of a small share of the pool comes from few clusters: with most sample rows from there,
    weighted by the pool rows that each stands for, the sample shows what such a budget takes.

    Args:
        dataset: Dataset, sorted by hash.
        seed: Seed of the draw, which depends on hashes only.
        small_budget: Whether the sample is for a small budget.

    Returns:
        The dataset itself and None if it has no more rows or is a weighted sample already; else a
        dataset with weights, and the row that each of its rows was.
    """
    if dataset.weights is not None:
        return dataset, None
    rates = sampling_rates(dataset.sizes, dataset.target_mass, small_budget=small_budget)
    if rates.min() >= 1.0:
        return dataset, None
    drawn = uniform(dataset, seed, "strategy sample") < rates[dataset.cluster]
    positions = np.flatnonzero(drawn).astype(np.int64)
    sample = reordered(dataset, positions)
    weights = sample_weights(rates, sample.cluster, dataset.rows)
    return dataclasses.replace(sample, weights=weights), positions


def sample_weights(
    rates: NDArray[np.float64], cluster: NDArray[np.int32], pool_rows: int
) -> NDArray[np.float64]:
    """Pool rows that each row of a sample stands for, (n,); together those of the pool.

    Args:
        rates: (K,) sampling rates of the clusters.
        cluster: (n,) cluster of each row of the sample.
        pool_rows: Rows of the pool.
    """
    weights = 1.0 / rates[cluster]
    return np.asarray(weights * (pool_rows / max(weights.sum(), 1e-300)), np.float64)


def trial_bytes(dimension: int, *, small_budget: bool, threads: int) -> int:
    """Memory of a choice, about: measured on texts, less on other content.

    Args:
        dimension: Length of a vector.
        small_budget: Whether the sample is for a small budget.
        threads: Splits that are tried at the same time.
    """
    rows = LARGE_SAMPLE_ROWS if small_budget else SAMPLE_ROWS
    return 250_000_000 + threads * (250_000_000 + rows * (8 * dimension + 2_500))


def split_target(
    sample: EvaluationDataset, seed: int, words: tuple[TextCodes, TextCodes] | None = None
) -> list[TargetSplit]:
    """Splits of the target into rows that judge and rows that candidates may see.

    Rows of a group (`target_groups`) and rows with the same vector are never separated. Rows of the
    pool and of the target that are near copies of a judging row, and pool rows of its group
    (`groups`), are in neither part.

    Args:
        sample: Sample of the pool with the whole target.
        seed: Seed of the split, which does not depend on the order of the rows.
        words: Codes of the words of pool and target, to compare texts; None: there are no texts.

    Returns:
        Three splits, or two of a target of 2,000 rows or more; none if there are fewer than four
        groups of target rows. A split whose target rows are nearly all near copies of judging rows
        is left out.
    """
    part = _parts(sample, seed)
    if part is None:
        return []
    count = _SPLITS[len(part) >= _LARGE_TARGET]
    splits = [_split(sample, np.flatnonzero(part == k)[:_JUDGING_ROWS], part != k, words)
              for k in range(count)]  # fmt: skip
    return [split for split in splits if split is not None]


def _parts(sample: EvaluationDataset, seed: int) -> NDArray[np.int64] | None:
    """Part of each target row, (m,): whole groups, parts of about equal size."""
    if sample.target_groups is None:
        keys = _content_keys(sample.target_vectors)
    else:
        names, index = np.unique(np.asarray(sample.target_groups).astype(str), return_inverse=True)
        digests = [hashlib.blake2b(str(n).encode(), digest_size=8).digest() for n in names]
        keys = np.array([int.from_bytes(d, "little") for d in digests], dtype=np.uint64)[index]
    keys = mix64(keys ^ mix64(np.full(1, seed, dtype=np.uint64)))
    _, group, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    if len(sizes) < _PARTS:
        return None
    middle = np.cumsum(sizes) - sizes / 2
    return (middle * _PARTS / len(keys)).astype(np.int64)[group]


def _content_keys(vectors: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Hash of the bits of each vector, (m,)."""
    bits = np.ascontiguousarray(vectors, dtype=np.float32).view(np.uint32).astype(np.uint64)
    factors = mix64(np.arange(bits.shape[1], dtype=np.uint64)) | np.uint64(1)
    return mix64((mix64(bits) * factors).sum(axis=1, dtype=np.uint64))


def _split(
    sample: EvaluationDataset,
    judging: NDArray[np.int64],
    visible: NDArray[np.bool_],
    words: tuple[TextCodes, TextCodes] | None,
) -> TargetSplit | None:
    judges = sample.target_vectors[judging]
    fit = np.flatnonzero(visible)
    limit = _copy_limit(judges, sample.target_vectors[fit])
    is_copy = _nearest_squared(sample.vectors, judges) <= limit
    target_copy = _nearest_squared(sample.target_vectors[fit], judges) <= limit
    if sample.groups is not None and sample.target_groups is not None:
        is_copy |= np.isin(sample.groups.astype(str), sample.target_groups[judging].astype(str))
    if words is not None:
        pool_words, target_words = words
        grams, owner = _sequences(target_words)
        is_judging = np.zeros(len(visible), dtype=bool)
        is_judging[judging] = True
        known = np.unique(grams[is_judging[owner]])
        is_copy |= known_share(*_sequences(pool_words), known, sample.rows) >= _COPY_SHARE
        target_copy |= known_share(grams, owner, known, len(visible))[fit] >= _COPY_SHARE
    rows = np.flatnonzero(~is_copy)
    fit = fit[~target_copy]
    if len(fit) < _FEWEST_TARGET_ROWS or not len(rows):
        return None
    vectors = sample.target_vectors[fit]
    target_texts = None if sample.target_texts is None else sample.target_texts.take(fit)
    dataset = dataclasses.replace(
        reordered(sample, rows),
        target_vectors=vectors,
        target_mass=target_distribution(vectors, sample.centroids),
        target_texts=target_texts,
        target_labels=None,
        groups=None,
        target_groups=None,
        held_vectors=sample.held_vectors[:0],
        held_texts=None,
        held_labels=None,
        held_features=None,
        labels=None,
        features=None,
        good=None,
    )
    return TargetSplit(dataset, rows, judging)


def _sequences(words: TextCodes) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    return code_sequences(words.code.astype(np.uint64), words.counts, _COPY_WORDS)


def target_distribution(
    vectors: NDArray[np.float32], centroids: NDArray[np.float32], neighbors: int = 8
) -> NDArray[np.float64]:
    """Distribution of target rows over the clusters, smoothed by the kernel of a run, (K,)."""
    if len(centroids) < 2:
        return np.ones(len(centroids))
    near = nearest_clusters(vectors, centroids, 2)[1]
    width = kernel_width(near, len(centroids), len(vectors))
    mass = kernel_mass(vectors, centroids, width, neighbors=neighbors).mass
    return np.asarray(mass / mass.sum(), dtype=np.float64)


def _copy_limit(judges: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """Squared distance up to which a row is a near copy of a judging row."""
    gap = float(np.median(_nearest_squared(judges, others)))
    spread = float(np.median(squared_norms(judges - judges.mean(axis=0))))
    return max(_COPY_DISTANCE**2 * gap, _ROUNDING * spread)


def _nearest_squared(rows: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Squared distance of each row to its nearest point, (n,)."""
    origin = points.mean(axis=0)
    centered = points - origin
    norms = squared_norms(centered)
    nearest = np.empty(len(rows), dtype=np.float32)
    for block in blocks(len(rows), len(points), 4):
        tile = squared_distances(rows[block] - origin, centered, right_norms=norms)
        nearest[block] = tile.min(axis=1)
    return nearest
