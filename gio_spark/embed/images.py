"""Image embedder: pixels on one scale, projected by a PCA fitted on a sample.

The projection of an image must not depend on its batch, but float32 matrix products do. So pixels
are integers (bytes unchanged, floats in steps of 1/65535 of the largest of the sample), components
are rounded to multiples of 2^-24, and the sums of their products are exact in float64.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.linalg import eigh

from gio_spark.embed.embedder import (
    EMPTY_CONTENT,
    NOT_FINITE,
    NULL_CONTENT,
    UNREADABLE_IMAGE,
    Embedder,
    Result,
    State,
    check_vectors,
    column,
    no_reasons,
    set_reason,
    usable,
)
from gio_spark.embed.vectors import equal_rows, flat_lists
from gio_spark.engine.arrow import bytes_of
from gio_spark.errors import ConfigError, InputError

_DEFAULT_DIMENSION = 64
_MAX_PIXELS = 8192
_FIT_ROWS = 10_000
_FIT_BLOCK = 1024
_COMPONENT_STEP = 2.0**-24
_FLOAT_STEPS = 65535.0
_BYTE_SCALE = 1.0 / 255.0


@dataclass(frozen=True)
class ImageEmbedder(Embedder):
    """Images as their first principal components.

    Encoded images (such as PNG and JPEG) are scaled to `image_size` x `image_size` pixels in
    `image_mode`; arrays of numbers and raw bytes are not scaled. Integers are divided by 255.
    """

    name: ClassVar[str] = "images"

    @property
    def revision(self) -> str:
        """Format version."""
        return "1"

    @property
    def needs_fit(self) -> bool:
        """True: the components must be fitted."""
        return True

    @property
    def fit_rows(self) -> int:
        """Number of sampled images (10,000 at most, as images are large)."""
        return min(_FIT_ROWS, self.settings.fit_rows)

    @property
    def dimension(self) -> int:
        """Number of fitted components."""
        return int(self.fitted("components").shape[0])

    @property
    def reads(self) -> tuple[str, ...]:
        """The image column."""
        if self.columns.image is None:
            raise InputError("Embedder 'images' needs columns.image: name the image column.")
        return (self.columns.image,)

    def prepare(self) -> ImageEmbedder:
        """Check the size of encoded images."""
        pixels = self._encoded_pixels()
        if pixels > _MAX_PIXELS:
            raise ConfigError(
                f"embedder.image_size {self.settings.image_size} in {self.settings.image_mode} "
                f"makes {pixels} pixels; at most {_MAX_PIXELS} can be analysed: choose fewer."
            )
        return self

    def fit(self, sample: pa.Table) -> State:
        """Fit the principal components of a sample.

        Returns:
            components (d, p) int32 in steps of 2^-24, offset (d,), unit and scale (1,), float64.

        Raises:
            InputError: Fewer than two readable images, or too many pixels.
        """
        array = column(sample, self.reads[0])
        width = self._pixel_count(array)
        if width > _MAX_PIXELS:
            raise InputError(
                f"Images of {width} numbers: at most {_MAX_PIXELS} can be analysed. Store encoded "
                "images, which are scaled down, or smaller arrays."
            )
        pixels, reasons = self._read(array, width)
        pixels = pixels[usable(reasons) & np.isfinite(pixels).all(axis=1)]
        if len(pixels) < 2:
            raise InputError(
                f"{len(pixels)} of {sample.num_rows} sampled images can be read; two are needed."
            )
        unit, scale = 1.0, _BYTE_SCALE
        if not _has_integers(array.type):
            unit, scale = (float(np.abs(pixels).max()) or 1.0) / _FLOAT_STEPS, 1.0
        mean, covariance = _moments(pixels, unit)
        count = min(self.settings.dimension or _DEFAULT_DIMENSION, width, len(pixels) - 1)
        _, vectors = eigh(covariance, subset_by_index=(width - count, width - 1))
        components = vectors[:, ::-1].T
        largest_entry = np.abs(components).argmax(axis=1)
        # The sign of an eigenvector is arbitrary: its largest entry is made positive.
        components = components * np.sign(components[np.arange(count), largest_entry])[:, None]
        steps = np.rint(components / _COMPONENT_STEP).astype(np.int32)
        return {
            "components": steps,
            "offset": steps.astype(np.float64) @ mean,
            "unit": np.array([unit]),
            "scale": np.array([scale]),
        }

    def embed(self, rows: pa.Table) -> Result:
        """Project images onto the fitted components."""
        array = column(rows, self.reads[0])
        components = self.fitted("components")
        is_integer = _has_integers(array.type)
        pixels, reasons = self._read(array, components.shape[1])
        if not is_integer:
            set_reason(reasons, np.asarray(~np.isfinite(pixels).all(axis=1)), NOT_FINITE)
        is_usable = usable(reasons)
        if not is_usable.all():
            pixels = np.where(is_usable[:, None], pixels, 0.0)
        unit, scale = float(self.fitted("unit")[0]), float(self.fitted("scale")[0])
        if is_integer != (scale == _BYTE_SCALE):
            fitted = "whole numbers" if scale == _BYTE_SCALE else "floats"
            raise InputError(
                f"Column '{self.reads[0]}' holds {array.type}, but the fit saw {fitted}: give all "
                "inputs one type."
            )
        steps = pixels if is_integer else np.rint(pixels / unit)
        sums = steps @ components.T.astype(np.float64) - self.fitted("offset")
        vectors = (sums * (unit * scale * _COMPONENT_STEP)).astype(np.float32)
        return check_vectors(vectors, reasons, normalize=self.normalize)

    def _encoded_pixels(self) -> int:
        return self.settings.image_size**2 * len(self.settings.image_mode)

    def _is_encoded(self, arrow_type: pa.DataType) -> bool:
        return _is_binary(arrow_type) and self.settings.image_bytes == "encoded"

    def _pixel_count(self, array: pa.Array) -> int:
        """Pixels of an image: from the settings for encoded images, else the most common length."""
        if self._is_encoded(array.type):
            return self._encoded_pixels()
        lengths = _raw_lengths(array) if _is_binary(array.type) else flat_lists(array)[0]
        lengths = lengths[lengths > 0]
        if not len(lengths):
            raise InputError(f"Column '{self.reads[0]}' has no image in {len(array)} sampled rows.")
        values, counts = np.unique(lengths, return_counts=True)
        return int(values[counts.argmax()])

    def _read(self, array: pa.Array, width: int) -> Result:
        """Pixels (n, width) float64, not scaled, and reasons."""
        if self._is_encoded(array.type):
            return _decode(array, self.settings.image_size, self.settings.image_mode)
        if _is_binary(array.type):
            lengths = _raw_lengths(array)
            blobs = pc.fill_null(array.cast(pa.large_binary()), b"")
            raw, ends = bytes_of(blobs)
            lists = pa.LargeListArray.from_arrays(pa.array(ends), pa.array(raw))
            pixels, reasons = equal_rows(lists, width, np.dtype(np.float64))
            missing = np.asarray(array.is_null())
            reasons[missing & (lengths == 0)] = NULL_CONTENT
            return pixels, reasons
        if pa.types.is_list(array.type) and pa.types.is_nested(array.type.value_type):
            raise InputError(
                f"Column '{self.reads[0]}' holds {array.type}: flatten the pixels to one array."
            )
        return equal_rows(array, width, np.dtype(np.float64))


def _moments(pixels: np.ndarray, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean (p,) and covariance (p, p) in multiples of `unit`; exact, as sums of integers."""
    rows, width = pixels.shape
    total, products = np.zeros(width), np.zeros((width, width))
    for start in range(0, rows, _FIT_BLOCK):
        block = np.rint(pixels[start : start + _FIT_BLOCK] / unit)
        total += block.sum(axis=0)
        products += block.T @ block
    mean = total / rows
    return mean, (products - rows * np.outer(mean, mean)) / (rows - 1)


def _decode(array: pa.Array, size: int, mode: str) -> Result:
    """Decode encoded images to (n, size * size * channels) float64 in 0..255, and reasons."""
    from PIL import Image  # imported here, so that only workers that decode images load it

    reasons = no_reasons(len(array))
    pixels = np.zeros((len(array), size * size * len(mode)), dtype=np.uint8)
    unreadable = (
        OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError
    )  # fmt: skip
    for index, value in enumerate(array.to_pylist()):
        if not value:
            reasons[index] = NULL_CONTENT if value is None else EMPTY_CONTENT
            continue
        try:
            with Image.open(io.BytesIO(value)) as image:
                image.draft(mode, (size, size))  # a JPEG need not be decoded at full size
                scaled = image.convert(mode).resize((size, size), Image.Resampling.BILINEAR)
        except unreadable:
            reasons[index] = UNREADABLE_IMAGE
            continue
        pixels[index] = np.asarray(scaled).reshape(-1)
    return pixels.astype(np.float64), reasons


def _raw_lengths(array: pa.Array) -> np.ndarray:
    return pc.fill_null(pc.binary_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)


def _is_binary(arrow_type: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_binary(arrow_type)
        or types.is_large_binary(arrow_type)
        or types.is_fixed_size_binary(arrow_type)
    )


def _has_integers(arrow_type: pa.DataType) -> bool:
    return _is_binary(arrow_type) or bool(pa.types.is_integer(arrow_type.value_type))
