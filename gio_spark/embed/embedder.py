"""Base class of embedders: Arrow rows to a float32 matrix and reasons of unusable rows."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.engine.content_hash import one_array
from gio_spark.errors import InputError
from gio_spark.settings.columns import Columns
from gio_spark.settings.embed import EmbedSettings

NULL_CONTENT = "null content"
EMPTY_CONTENT = "empty content"
NULL_OUTPUT = "null output"
EMPTY_OUTPUT = "empty output"
NOT_UTF8 = "text is not UTF-8"
NOT_FINITE = "NaN or infinite value"
ZERO_NORM = "zero norm"
HUGE = "value too large"
LONG_TEXT = "text above embed.max_bytes"
UNREADABLE_IMAGE = "unreadable image"

State = dict[str, np.ndarray]
Result = tuple[np.ndarray, np.ndarray]
Self = TypeVar("Self", bound="Embedder")

_BLOCK_ROWS = 256
# Squared norm above which distances between float32 vectors could overflow.
_MAX_SQUARED_NORM = 1e37
# A float32 sum of squares below this is below the limit whatever its rounding.
_SAFE_SQUARED_NORM = 1e36

_models: dict[tuple[Any, ...], Any] = {}
_models_lock = threading.Lock()


@dataclass(frozen=True)
class Embedder(ABC):
    """Embedder of rows as vectors; small, immutable and pickled by reference.

    Models are not part of an embedder: a worker loads them on first use and caches them
    (`load_once`). `state` holds what is fitted to data, as plain arrays that can be stored.

    Attributes:
        settings: Settings of the embedding stage.
        columns: Roles of the input columns.
        state: Fitted arrays, empty before `with_state` or where nothing is fitted.
    """

    settings: EmbedSettings
    columns: Columns
    state: Mapping[str, np.ndarray] = field(default_factory=dict)

    name: ClassVar[str] = ""
    knows_dimension: ClassVar[bool] = True
    """Whether `dimension` needs no model and no data; if not, it is read from embedded rows."""

    @property
    @abstractmethod
    def revision(self) -> str:
        """Version of the vectors beyond the settings: format version, model and its revision."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Length of a vector. Raises InputError before a required fit."""

    @property
    @abstractmethod
    def reads(self) -> tuple[str, ...]:
        """Content columns of the input, in a fixed order."""

    @abstractmethod
    def embed(self, rows: pa.Table) -> Result:
        """Embed rows.

        Args:
            rows: Table with the columns of `reads`, n rows.

        Returns:
            Vectors (n, dimension), float32 (undefined where there is a reason), and reasons
            (n,), object array of str or None.
        """

    @property
    def needs_fit(self) -> bool:
        """Whether `fit` must run (on a sample of the pool) before `embed`."""
        return False

    @property
    def fit_rows(self) -> int:
        """Number of sampled rows for `fit`."""
        return self.settings.fit_rows

    @property
    def normalize(self) -> bool:
        """Whether vectors are scaled to length one."""
        return bool(self.settings.normalize)

    def fit(self, sample: pa.Table) -> State:
        """Fit the state that `embed` needs on sampled rows, as plain arrays to store."""
        del sample
        return {}

    def with_state(self: Self, state: Mapping[str, np.ndarray]) -> Self:
        """Copy of this embedder with fitted arrays."""
        return replace(self, state=dict(state))

    def with_columns(self: Self, columns: Columns) -> Self:
        """Copy of this embedder for an input with other column names."""
        return replace(self, columns=columns)

    def prepare(self: Self) -> Self:
        """Check on the driver that extras and models are available, before any expensive work.

        Returns:
            The embedder to use, with a hub model fixed to its commit.
        """
        return self

    def fitted(self, key: str) -> np.ndarray:
        """One fitted array. Raises InputError where the fit is missing."""
        if key not in self.state:
            raise InputError(
                f"Embedder '{self.name}' has not been fitted ('{key}' is missing): run fit on a "
                "sample of the pool and pass its arrays to with_state."
            )
        return self.state[key]


def load_once(key: tuple[Any, ...], load: Callable[[], Any]) -> Any:
    """Object of a key, loaded once per process (thread-safe)."""
    with _models_lock:
        if key not in _models:
            _models[key] = load()
        return _models[key]


def no_reasons(rows: int) -> np.ndarray:
    """Reasons (n,) of rows that are all usable: None."""
    return np.full(rows, None, dtype=object)


def usable(reasons: np.ndarray) -> np.ndarray:
    """Mask (n,) of the rows without a reason."""
    return np.asarray(np.equal(reasons, np.array(None, dtype=object)), dtype=bool)


def set_reason(reasons: np.ndarray, where: np.ndarray, reason: str) -> None:
    """Set the reason of rows that have none yet."""
    reasons[where & usable(reasons)] = reason


def column(rows: pa.Table | pa.RecordBatch, name: str) -> pa.Array:
    """Column as one array. Raises an InputError that names a missing column."""
    index = rows.schema.get_field_index(name)
    if index < 0:
        raise InputError(
            f"Column '{name}' is missing (or there twice): the rows have "
            f"{', '.join(rows.schema.names)}."
        )
    return one_array(rows.column(index))


def text_column(rows: pa.Table, name: str) -> tuple[pa.Array, np.ndarray]:
    """Texts (without nulls), and reasons of null, blank and invalid ones."""
    array = column(rows, name)
    if pa.types.is_null(array.type):
        array = array.cast(pa.string())
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        raise InputError(
            f"Column '{name}' holds {array.type}, not text: name a string column as text."
        )
    reasons = no_reasons(len(array))
    set_reason(reasons, np.asarray(array.is_null()), NULL_CONTENT)
    filled = pc.fill_null(array, "")
    try:
        filled.validate(full=True)
    except pa.ArrowInvalid:
        invalid = np.array([not _is_utf8(v) for v in filled.cast(pa.large_binary()).to_pylist()])
        set_reason(reasons, invalid, NOT_UTF8)
        filled = pc.if_else(pa.array(invalid), pa.scalar("", filled.type), filled)
    set_reason(reasons, np.asarray(pc.equal(pc.utf8_trim_whitespace(filled), "")), EMPTY_CONTENT)
    return filled, reasons


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def check_vectors(vectors: np.ndarray, reasons: np.ndarray, *, normalize: bool) -> Result:
    """Set reasons of unusable vectors, and optionally scale the others to length one.

    The norm is a float64 sum over one row in a fixed order, so the bits do not depend on the
    batch of a row.

    Args:
        vectors: (n, d) float32.
        reasons: (n,) str or None; rows with a reason are not changed.
        normalize: Scale to length one.
    """
    if not vectors.shape[0]:
        return vectors, reasons
    is_usable = usable(reasons)
    is_finite = np.ones(len(vectors), bool)
    with np.errstate(all="ignore"):  # NaN, infinity and overflow are detected below
        suspects = np.flatnonzero(~(np.einsum("ij,ij->i", vectors, vectors) < _SAFE_SQUARED_NORM))
        wide_rows = vectors[suspects].astype(np.float64)
        is_finite[suspects] = np.isfinite(wide_rows).all(axis=1)
        is_huge = np.zeros(len(vectors), bool)
        is_huge[suspects] = is_finite[suspects] & (
            (wide_rows * wide_rows).sum(axis=1) > _MAX_SQUARED_NORM
        )
    set_reason(reasons, ~is_finite, NOT_FINITE)
    if not normalize:
        set_reason(reasons, is_huge, HUGE)
    else:
        unscaled, vectors = vectors, np.empty(vectors.shape, np.float32)
        norms = np.empty(len(vectors))
        # Rows of a block stay in the CPU cache while they are squared, summed and divided.
        for start in range(0, len(vectors), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            wide_block = unscaled[block].astype(np.float64)
            with np.errstate(all="ignore"):  # rows with a reason may hold anything
                norms[block] = np.sqrt((wide_block * wide_block).sum(axis=1))
                has_direction = is_usable[block] & is_finite[block] & (norms[block] > 0)
                wide_block /= np.where(has_direction, norms[block], 1.0)[:, None]
                vectors[block] = wide_block
        set_reason(reasons, is_finite & (norms == 0), ZERO_NORM)
    return vectors, reasons
