"""Dataset that all methods of a bake-off see: a sample of the pool, the target and the codebook."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class EvaluationDataset:
    """Bounded sample of a pool with its target, as arrays; all arrays have the same row order.

    Methods may read all fields except `held_vectors`, `held_texts`, `labels`, `target_labels`,
    `held_labels` and `good`, which are for measures, for the judge of `auto` and for the oracle.

    Attributes:
        vectors: (n, d) float32 of the pool rows.
        hashes: (n,) uint64 hash of the id of each row; ties and random draws depend on it only.
        target_vectors: (m, d) float32.
        centroids: (K, d) float32 of the pool's codebook.
        cluster: (n,) int32, cluster of each pool row.
        target_mass: (K,) target distribution over the clusters, smoothed by the kernel; sums to 1.
        held_vectors: (h, d) float32 of held-out target rows.
        texts: n texts of the pool, or None.
        target_texts: m texts, or None.
        held_texts: h texts, or None.
        sources: (n,) source of each row, or None.
        tokens: (n,) int64 tokens of each row, or None.
        labels: (n,) labels of the pool, or None.
        target_labels: (m,) labels of the target rows, coded as those of the pool, or None.
        groups: (n,) groups of pool rows, as `target_groups`, or None; rows of a group of judging
            rows are hidden from the candidates of `auto`.
        target_groups: (m,) groups of target rows that belong together (a document, a person), or
            None; no split of the target separates the rows of a group.
        weights: (n,) pool rows that each row stands for, or None where all stand for equally many.
        held_labels: (h,) labels of the held-out target rows, or None.
        good: (n,) float, oracle value of each row (1 is best), or None.
        features: (n, f) float32 for proxy models and for the two-sample test; no method is fitted
            on them. None: `vectors` are used.
        held_features: (h, f) float32, or None.
        categories: (n, c) int32 codes of categorical columns, for proxy models alone, which see
            fields of many values by them (`gime.proxy_training.frequency_codes`); or None.
        held_categories: (h, c) int32, or None.
    """

    vectors: NDArray[np.float32]
    hashes: NDArray[np.uint64]
    target_vectors: NDArray[np.float32]
    centroids: NDArray[np.float32]
    cluster: NDArray[np.int32]
    target_mass: NDArray[np.float64]
    held_vectors: NDArray[np.float32]
    texts: pa.Array | None = None
    target_texts: pa.Array | None = None
    held_texts: pa.Array | None = None
    sources: NDArray[Any] | None = None
    tokens: NDArray[np.int64] | None = None
    labels: NDArray[Any] | None = None
    target_labels: NDArray[Any] | None = None
    groups: NDArray[Any] | None = None
    target_groups: NDArray[Any] | None = None
    weights: NDArray[np.float64] | None = None
    held_labels: NDArray[Any] | None = None
    good: NDArray[np.float64] | None = None
    features: NDArray[np.float32] | None = None
    held_features: NDArray[np.float32] | None = None
    categories: NDArray[np.int32] | None = None
    held_categories: NDArray[np.int32] | None = None

    @property
    def rows(self) -> int:
        """Number of rows in the pool sample."""
        return len(self.vectors)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Number of pool rows that the rows of each cluster stand for, (K,)."""
        sizes = np.bincount(self.cluster, self.weights, minlength=len(self.centroids))
        return np.rint(sizes).astype(np.int64)

    @property
    def pool_rows(self) -> int:
        """Number of pool rows that all rows stand for."""
        return int(self.sizes.sum())
