"""Tabular embedder: standardized numbers and hashed categories."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.embed.column_casts import as_numbers, as_strings
from gio_spark.embed.embedder import (
    NOT_FINITE,
    NULL_CONTENT,
    Embedder,
    Result,
    State,
    check_vectors,
    column,
    no_reasons,
    set_reason,
)
from gio_spark.errors import InputError

_ENTRIES = 4


@dataclass(frozen=True)
class TabularEmbedder(Embedder):
    """Numbers as (x - mean) / scale of a sample, categories as unit vectors of a fixed hash.

    The mean squared difference of two standardized numbers is 2, and so is that of two different
    categories, so that all columns have the same weight. A missing number becomes 0 (the mean) and
    sets an indicator coordinate where the column had gaps in the sample; a missing category is a
    category of its own. Coordinates: numbers, gap indicators, categories.
    """

    name: ClassVar[str] = "tabular"

    @property
    def revision(self) -> str:
        """Format version."""
        return "1"

    @property
    def needs_fit(self) -> bool:
        """Whether there are numbers to standardize."""
        return bool(self.columns.numeric)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        width = len(self.columns.numeric)
        if width:
            width += int(self.fitted("gaps").sum())
        return width + (self.settings.category_dimension if self.columns.categorical else 0)

    @property
    def reads(self) -> tuple[str, ...]:
        """Numeric, then categorical columns."""
        if not self.columns.numeric and not self.columns.categorical:
            raise InputError(
                "Embedder 'tabular' needs columns.numeric or columns.categorical: name features."
            )
        return (*self.columns.numeric, *self.columns.categorical)

    def fit(self, sample: pa.Table) -> State:
        """Fit mean and scale of each number, and find the columns with gaps.

        Returns:
            mean, scale (c,) float64 (scale 1 for a constant column) and gaps (c,) bool.
        """
        mean, scale, gaps = [], [], []
        for name in self.columns.numeric:
            values, _ = as_numbers(column(sample, name), name)
            finite = values[np.isfinite(values)]
            if not len(finite):
                raise InputError(
                    f"Column '{name}' has no number in {sample.num_rows} sampled rows."
                )
            spread = float(finite.std())
            mean.append(float(finite.mean()))
            scale.append(spread if spread > 0 else 1.0)
            gaps.append(bool(np.isnan(values).any()))
        return {
            "mean": np.array(mean, dtype=np.float64),
            "scale": np.array(scale, dtype=np.float64),
            "gaps": np.array(gaps, dtype=bool),
        }

    def embed(self, rows: pa.Table) -> Result:
        """Embed rows of features."""
        reasons = no_reasons(rows.num_rows)
        missing = np.ones(rows.num_rows, dtype=bool)
        parts: list[np.ndarray] = []
        if self.columns.numeric:
            numbers, gap_flags = self._numbers(rows, reasons, missing)
            parts += [numbers, gap_flags]
        if self.columns.categorical:
            parts.append(self._categories(rows, missing))
        set_reason(reasons, missing, NULL_CONTENT)
        vectors = np.concatenate(parts, axis=1).astype(np.float32)
        return check_vectors(vectors, reasons, normalize=self.normalize)

    def _numbers(
        self, rows: pa.Table, reasons: np.ndarray, missing: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        mean, scale = self.fitted("mean"), self.fitted("scale")
        values = np.empty((rows.num_rows, len(mean)))
        for index, name in enumerate(self.columns.numeric):
            values[:, index], invalid = as_numbers(column(rows, name), name)
            set_reason(reasons, invalid, f"column '{name}' is not a number")
            set_reason(reasons, np.isinf(values[:, index]), NOT_FINITE)
        gaps = np.isnan(values)
        missing &= gaps.all(axis=1)
        with np.errstate(all="ignore"):  # rows with infinite values have a reason already
            scaled = np.where(gaps, 0.0, (values - mean) / scale)
        return scaled, gaps[:, self.fitted("gaps")].astype(np.float64)

    def _categories(self, rows: pa.Table, missing: np.ndarray) -> np.ndarray:
        width = self.settings.category_dimension
        sums = np.zeros((rows.num_rows, width))
        for name in self.columns.categorical:
            array = as_strings(column(rows, name), name)
            missing &= np.asarray(array.is_null())
            encoded = array.dictionary_encode()
            values = [*encoded.dictionary.to_pylist(), None]
            category_vectors = np.stack(
                [_category_vector(name, v, width, self.settings.seed) for v in values]
            )
            sums += category_vectors[pc.fill_null(encoded.indices, len(values) - 1).to_numpy()]
        return sums


def _category_vector(name: str, value: str | None, width: int, seed: int) -> np.ndarray:
    """Hashed vector of one category of one column, with four entries of 1/2 or -1/2."""
    text = f"{seed}\0{name}\0{'0' if value is None else '1' + value}"
    digest = hashlib.blake2b(text.encode(), digest_size=8 * _ENTRIES).digest()
    vector = np.zeros(width)
    for number in np.frombuffer(digest, "<u8").tolist():
        vector[(number >> 1) % width] += 0.5 if number & 1 else -0.5
    return vector
