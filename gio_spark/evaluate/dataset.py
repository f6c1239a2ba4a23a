"""What every method of a bake-off sees: one pinned sample of the pool, one target, one codebook."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class EvaluationDataset:
    """A bounded sample of a pool with its target, as arrays; rows keep one order everywhere.

    Methods may read everything here except `held_vectors`, `held_texts`, `labels`, `held_labels`
    and `good`, which are for measures and for the oracle alone.

    Attributes:
        vectors: (n, d) float32 of the pool's rows.
        hashes: (n,) uint64 hash of each row's id: the one source of ties and draws.
        target_vectors: (m, d) float32.
        centroids: (K, d) float32 of the pool's codebook.
        cluster: (n,) int32, cluster of each pool row.
        target_mass: (K,) target's mass on the codebook, spread by the kernel, sums to 1.
        held_vectors: (h, d) float32 of held-out target rows.
        texts: n texts of the pool, or None.
        target_texts: m texts, or None.
        held_texts: h texts, or None.
        sources: (n,) source of each row, or None.
        tokens: (n,) int64 tokens of each row, or None.
        labels: (n,) labels of the pool, or None.
        held_labels: (h,) labels of the held-out target rows, or None.
        good: (n,) float, what an oracle knows of a row (1 is best), or None.
        features: (n, f) float32 for proxies and for the two-sample test, which no method is
            fitted on, or None: then `vectors` serve.
        held_features: (h, f) float32, or None.
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
    held_labels: NDArray[Any] | None = None
    good: NDArray[np.float64] | None = None
    features: NDArray[np.float32] | None = None
    held_features: NDArray[np.float32] | None = None

    @property
    def rows(self) -> int:
        """Rows of the pool's sample."""
        return len(self.vectors)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(K,) rows of the sample in each cluster."""
        return np.bincount(self.cluster, minlength=len(self.centroids))
