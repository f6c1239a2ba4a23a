"""What every embedder is: Arrow rows in, a float32 matrix and reasons out."""

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
NOT_UTF8 = "text is not UTF-8"
NOT_FINITE = "NaN or infinite value"
ZERO_NORM = "zero norm"
HUGE = "value too large"
UNREADABLE_IMAGE = "unreadable image"

State = dict[str, np.ndarray]
Result = tuple[np.ndarray, np.ndarray]
Self = TypeVar("Self", bound="Embedder")

_BLOCK_ROWS = 256
# Squared length above which distances between float32 vectors could overflow.
_LONGEST = 1e37
# Below this a float32 sum of squares, whatever its rounding, leaves no doubt.
_SURELY_SHORT = 1e36

_models: dict[tuple[Any, ...], Any] = {}
_models_lock = threading.Lock()


@dataclass(frozen=True)
class Embedder(ABC):
    """Turns rows into vectors; small, immutable and sent to workers by reference.

    Models are never part of an embedder: a worker loads them on first use and keeps them
    (`load_once`). What is learnt from data is `state`, plain arrays that can be stored.

    Attributes:
        settings: The stage's settings.
        columns: Roles of the input's columns.
        state: Fitted arrays, empty before `with_state` or where nothing is fitted.
    """

    settings: EmbedSettings
    columns: Columns
    state: Mapping[str, np.ndarray] = field(default_factory=dict)

    name: ClassVar[str] = ""
    knows_dimension: ClassVar[bool] = True
    """Whether `dimension` is right for every input and costs nothing; if not, rows tell it."""

    @property
    @abstractmethod
    def revision(self) -> str:
        """Name what else the vectors depend on: format version, model and its revision."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Return the length of a vector. Raises InputError before a needed fit."""

    @property
    @abstractmethod
    def reads(self) -> tuple[str, ...]:
        """Return the user's columns that the content is made of, in a fixed order."""

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
        """Tell whether `fit` must run (on a sample of the pool) before `embed`."""
        return False

    @property
    def fit_rows(self) -> int:
        """Return how many sampled rows `fit` wants."""
        return self.settings.fit_rows

    @property
    def normalize(self) -> bool:
        """Tell whether vectors are scaled to length one."""
        return bool(self.settings.normalize)

    def fit(self, sample: pa.Table) -> State:
        """Learn from sampled rows what `embed` needs; returns plain arrays to store."""
        del sample
        return {}

    def with_state(self: Self, state: Mapping[str, np.ndarray]) -> Self:
        """Return this embedder with fitted arrays."""
        return replace(self, state=dict(state))

    def with_columns(self: Self, columns: Columns) -> Self:
        """Return this embedder for an input whose columns have other names."""
        return replace(self, columns=columns)

    def prepare(self: Self) -> Self:
        """Check on the driver that extras and models are there, before any expensive work.

        Returns:
            The embedder to use from here on: a hub model is pinned to its commit.
        """
        return self

    def fitted(self, key: str) -> np.ndarray:
        """Return one fitted array. Raises InputError where the fit is missing."""
        if key not in self.state:
            raise InputError(
                f"Embedder '{self.name}' has not been fitted ('{key}' is missing): run fit on a "
                "sample of the pool and pass its arrays to with_state."
            )
        return self.state[key]


def load_once(key: tuple[Any, ...], load: Callable[[], Any]) -> Any:
    """Return the object under a key, loading it once per process, whatever thread asks."""
    with _models_lock:
        if key not in _models:
            _models[key] = load()
        return _models[key]


def no_reasons(rows: int) -> np.ndarray:
    """Return reasons for rows that are all fine."""
    return np.full(rows, None, dtype=object)


def usable(reasons: np.ndarray) -> np.ndarray:
    """Return a mask of the rows without a reason."""
    return np.asarray(np.equal(reasons, np.array(None, dtype=object)), dtype=bool)


def set_reason(reasons: np.ndarray, where: np.ndarray, reason: str) -> None:
    """Give rows a reason, unless they have one already."""
    reasons[where & usable(reasons)] = reason


def column(rows: pa.Table | pa.RecordBatch, name: str) -> pa.Array:
    """Return a column as one array. Raises InputError naming a missing column."""
    index = rows.schema.get_field_index(name)
    if index < 0:
        raise InputError(
            f"Column '{name}' is missing (or there twice): the rows have "
            f"{', '.join(rows.schema.names)}."
        )
    return one_array(rows.column(index))


def text_column(rows: pa.Table, name: str) -> tuple[pa.Array, np.ndarray]:
    """Return the texts (no nulls) and reasons for null and blank ones."""
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
        broken = np.array([not _is_utf8(v) for v in filled.cast(pa.large_binary()).to_pylist()])
        set_reason(reasons, broken, NOT_UTF8)
        filled = pc.if_else(pa.array(broken), pa.scalar("", filled.type), filled)
    set_reason(reasons, np.asarray(pc.equal(pc.utf8_trim_whitespace(filled), "")), EMPTY_CONTENT)
    return filled, reasons


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def check_vectors(vectors: np.ndarray, reasons: np.ndarray, *, normalize: bool) -> Result:
    """Find unusable vectors, and scale the others to length one if asked.

    The norm is a float64 sum over one row in a fixed order, so the bits do not depend on the
    batch that a row came in.

    Args:
        vectors: (n, d) float32.
        reasons: (n,) str or None; rows that have one are left alone.
        normalize: Scale to length one.
    """
    if not vectors.shape[0]:
        return vectors, reasons
    fine = usable(reasons)
    finite = np.ones(len(vectors), bool)
    with np.errstate(all="ignore"):  # NaN, infinity and overflow are what is looked for
        suspect = np.flatnonzero(~(np.einsum("ij,ij->i", vectors, vectors) < _SURELY_SHORT))
        doubtful = vectors[suspect].astype(np.float64)
        finite[suspect] = np.isfinite(doubtful).all(axis=1)
        huge = np.zeros(len(vectors), bool)
        huge[suspect] = finite[suspect] & ((doubtful * doubtful).sum(axis=1) > _LONGEST)
    set_reason(reasons, ~finite, NOT_FINITE)
    if not normalize:
        set_reason(reasons, huge, HUGE)
    else:
        given, vectors = vectors, np.empty(vectors.shape, np.float32)
        norms = np.empty(len(vectors))
        # Rows of a block stay in the cache while they are squared, added up and divided.
        for start in range(0, len(vectors), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            wide = given[block].astype(np.float64)
            with np.errstate(all="ignore"):  # rows with a reason may hold anything
                norms[block] = np.sqrt((wide * wide).sum(axis=1))
                scaled = fine[block] & finite[block] & (norms[block] > 0)
                wide /= np.where(scaled, norms[block], 1.0)[:, None]
                vectors[block] = wide
        set_reason(reasons, finite & (norms == 0), ZERO_NORM)
    return vectors, reasons
