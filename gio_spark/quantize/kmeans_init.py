"""Where a fit begins: a hash sample of the rows, and first centres chosen among it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.errors import InputError
from gio_spark.kernels import largest_values
from gio_spark.kernels.search import FloatMatrix
from gio_spark.quantize.kmeans_pass import unit_rows
from gio_spark.quantize.kmeans_seeding import first_centres, sample_rows
from gio_spark.quantize.kmeans_state import KMeansState

if TYPE_CHECKING:
    from gio_spark.quantize.kmeans_parameters import KMeansParameters

OnSample: TypeAlias = Callable[[FloatMatrix], Any]

WHOSE = "column 'vector' of the rows to cluster"


def sample_salt(fit: KMeansParameters) -> str:
    """Return the salt of the hash by which the sample for the first centres is drawn."""
    return f"kmeans-first-{fit.seed}"


def sample_size(fit: KMeansParameters, rows: int, dimension: int) -> int:
    """Return the rows of that sample."""
    return min(rows, sample_rows(fit.k, dimension, fit.init_rows))


def refuse_bad(ids: pa.Array | pa.ChunkedArray, vectors: FloatMatrix) -> None:
    """Refuse a sample with vectors that are not finite.

    Raises:
        InputError: There are some; the first of their ids is named.
    """
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        bad = ids[int(np.flatnonzero(~finite)[0])].as_py()
        raise InputError(
            f"{WHOSE}: {int((~finite).sum()):,} of {len(vectors):,} sampled vectors hold NaN "
            f"or infinite values, first id {bad!r}. Leave such rows out, as a run does by "
            "putting them into quarantine."
        )


def lowest(hashes: npt.NDArray[np.int64], ids: pa.Array, wanted: int) -> npt.NDArray[np.intp]:
    """Return the places of the rows with the smallest hashes, in order of (hash, id)."""
    few = np.arange(len(hashes))
    if wanted < len(hashes):
        few = np.flatnonzero(hashes <= np.partition(hashes, wanted - 1)[wanted - 1])
    table = pa.table({"hash": hashes[few], "id": ids.take(pa.array(few))})
    order = pc.sort_indices(table, sort_keys=[("hash", "ascending"), ("id", "ascending")])
    return few[order.to_numpy()[:wanted]]


def first_state(fit: KMeansParameters, sample: FloatMatrix, rows: int) -> KMeansState:
    """Choose first centres among a sample.

    Args:
        fit: The estimator.
        sample: (n, d) float32, in order of (hash, id), of length one where the fit wants that.
        rows: Rows of the table.
    """
    centres = sample[first_centres(sample, min(fit.k, rows), seed=fit.seed)]
    return state_at(fit, centres, sample, rows)


def state_at(
    fit: KMeansParameters, centres: FloatMatrix, sample: FloatMatrix, rows: int
) -> KMeansState:
    """Return the state of a fit that begins at the given centres, (K, d) float32."""
    if fit.spherical:
        centres = unit_rows(centres)
    largest = np.maximum(largest_values(sample), np.abs(centres).max(axis=0))
    return KMeansState(centres, np.zeros(len(centres)), largest, rows)
