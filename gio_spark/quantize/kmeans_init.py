"""Initialization of a fit: a hash sample of the rows, and first centers chosen from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.errors import InputError
from gio_spark.kernels import largest_values
from gio_spark.kernels.nearest_centroid import FloatMatrix
from gio_spark.quantize.kmeans_pass import unit_rows
from gio_spark.quantize.kmeans_seeding import first_centers, sample_rows
from gio_spark.quantize.kmeans_state import KMeansState

if TYPE_CHECKING:
    from gio_spark.quantize.kmeans_parameters import KMeansParameters

OnSample: TypeAlias = Callable[[FloatMatrix], Any]

INPUT_LABEL = "column 'vector' of the rows to cluster"


def sample_salt(fit: KMeansParameters) -> str:
    """Salt of the hash that draws the sample for the first centers."""
    return f"kmeans-first-{fit.seed}"


def sample_size(fit: KMeansParameters, rows: int, dimension: int) -> int:
    """Number of rows of the sample for the first centers."""
    return min(rows, sample_rows(fit.k, dimension, fit.init_rows))


def check_finite(ids: pa.Array | pa.ChunkedArray, vectors: FloatMatrix) -> None:
    """Check that all sampled vectors are finite.

    Raises:
        InputError: Some are not; the message names the first id.
    """
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        first_id = ids[int(np.flatnonzero(~finite)[0])].as_py()
        raise InputError(
            f"{INPUT_LABEL}: {int((~finite).sum()):,} of {len(vectors):,} sampled vectors hold NaN "
            f"or infinite values, first id {first_id!r}. Leave such rows out, as a run does by "
            "putting them into quarantine."
        )


def smallest_hashes(
    hashes: npt.NDArray[np.int64], ids: pa.Array, count: int
) -> npt.NDArray[np.intp]:
    """Indices of the `count` rows with the smallest hashes, in order of (hash, id)."""
    candidates = np.arange(len(hashes))
    if count < len(hashes):
        candidates = np.flatnonzero(hashes <= np.partition(hashes, count - 1)[count - 1])
    table = pa.table({"hash": hashes[candidates], "id": ids.take(pa.array(candidates))})
    order = pc.sort_indices(table, sort_keys=[("hash", "ascending"), ("id", "ascending")])
    return candidates[order.to_numpy()[:count]]


def initial_state(fit: KMeansParameters, sample: FloatMatrix, rows: int) -> KMeansState:
    """Initial state of a fit, with first centers chosen from a sample.

    Args:
        fit: The estimator.
        sample: (n, d) float32, in order of (hash, id), scaled to length one for a spherical fit.
        rows: Rows of the table.
    """
    centers = sample[first_centers(sample, min(fit.k, rows), seed=fit.seed)]
    return initial_state_at(fit, centers, sample, rows)


def initial_state_at(
    fit: KMeansParameters, centers: FloatMatrix, sample: FloatMatrix, rows: int
) -> KMeansState:
    """Initial state of a fit that starts from centers (K, d) float32."""
    if fit.spherical:
        centers = unit_rows(centers)
    largest = np.maximum(largest_values(sample), np.abs(centers).max(axis=0))
    return KMeansState(centers, np.zeros(len(centers)), largest, rows)
