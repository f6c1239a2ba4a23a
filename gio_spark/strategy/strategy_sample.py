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
from gio_spark.strategy.methods.hash_draws import top, uniform
from gio_spark.strategy.methods.method_registry import reordered
from gio_spark.strategy.text_codes import TextCodes

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Rows of the sample, and the part of them for clusters that hold target mass.
SAMPLE_ROWS = 20_000
_RELEVANT_ROWS = 0.75
#: Part of the target mass that the relevant clusters hold.
_RELEVANT_MASS = 0.95
#: The target is cut into so many parts, of each of which at most so many rows judge. A small target
#: is judged on three of them in turn, a large one on two.
_PARTS, _JUDGING_ROWS, _LARGE_TARGET, _SPLITS = 4, 2_000, 2_000, (3, 2)
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


def relevant_clusters(
    sizes: NDArray[np.int64], target_mass: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Clusters in which the target is densest and which hold 95 % of its mass, (K,).

    Args:
        sizes: (K,) pool rows of each cluster.
        target_mass: (K,) target distribution.

    Example:
        >>> relevant_clusters(np.array([90, 10, 5]), np.array([0.05, 0.9, 0.05])).tolist()
        [False, True, True]
    """
    density = np.divide(target_mass, sizes, out=np.zeros(len(sizes)), where=sizes > 0)
    order = np.argsort(-density, kind="stable")
    mass = np.cumsum(np.where(sizes > 0, target_mass, 0.0)[order])
    is_relevant = np.zeros(len(sizes), dtype=bool)
    is_relevant[order[: int(np.searchsorted(mass, _RELEVANT_MASS * mass[-1])) + 1]] = True
    return is_relevant & (sizes > 0)


def rows_of_strata(relevant: int, other: int, rows: int) -> tuple[int, int]:
    """Sample rows of relevant and of other clusters, from the pool rows of both.

    Example:
        >>> rows_of_strata(1_000_000, 9_000_000, 20_000)
        (15000, 5000)
        >>> rows_of_strata(2_000, 998_000, 20_000)
        (2000, 18000)
    """
    if relevant + other <= rows:
        return relevant, other
    share = max(_RELEVANT_ROWS, relevant / (relevant + other))
    relevant_rows = min(relevant, round(share * rows))
    other_rows = min(other, rows - relevant_rows)
    return min(relevant, rows - other_rows), other_rows


def strategy_sample(
    dataset: EvaluationDataset, seed: int, rows: int = SAMPLE_ROWS
) -> tuple[EvaluationDataset, NDArray[np.int64] | None]:
    """Stratified sample of a dataset, over-drawn where the target has mass.

    A budget of a small share of the pool comes from few clusters: with most sample rows from there,
    weighted by the pool rows that each stands for, the sample shows what such a budget takes.

    Args:
        dataset: Dataset, sorted by hash.
        seed: Seed of the draw, which depends on hashes only.
        rows: Most rows of the sample.

    Returns:
        The dataset itself and None if it has no more rows; else a dataset with weights, and the row
        that each of its rows was.
    """
    if dataset.rows <= rows:
        return dataset, None
    is_relevant = relevant_clusters(dataset.sizes, dataset.target_mass)[dataset.cluster]
    strata = [np.flatnonzero(is_relevant), np.flatnonzero(~is_relevant)]
    draws = uniform(dataset, seed, "strategy sample")
    positions, weights = [], []
    for stratum, count in zip(
        strata, rows_of_strata(len(strata[0]), len(strata[1]), rows), strict=True
    ):
        if count:
            positions.append(stratum[top(draws[stratum], count)])
            weights.append(np.full(count, len(stratum) / count))
    order = np.argsort(np.concatenate(positions), kind="stable")
    rows_of_sample = np.concatenate(positions)[order]
    sample = reordered(dataset, rows_of_sample)
    factor = np.concatenate(weights)[order]
    if sample.weights is not None:
        factor = factor * sample.weights
    return dataclasses.replace(sample, weights=factor), rows_of_sample


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
        groups of target rows.
    """
    part = _parts(sample, seed)
    if part is None:
        return []
    count = _SPLITS[len(part) >= _LARGE_TARGET]
    return [_split(sample, np.flatnonzero(part == k)[:_JUDGING_ROWS], part != k, words)
            for k in range(count)]  # fmt: skip


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
) -> TargetSplit:
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
