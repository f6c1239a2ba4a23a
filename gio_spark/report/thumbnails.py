"""Thumbnails of image rows, as data URIs."""

from __future__ import annotations

import base64
import io
import logging
from typing import Any

import numpy as np
from PIL import Image

log = logging.getLogger(__name__)

SIZE = 72
_MAX_PIXELS = 64_000_000


def thumbnail(image: bytes | np.ndarray | None) -> str | None:
    """PNG of at most 72 x 72 pixels as a data URI, or None if it cannot be read.

    Args:
        image: Encoded PNG, JPEG, GIF or WebP bytes, or pixels (h, w), (h, w, 1), (h, w, 3), or flat
            and square. Pixels that are not uint8 are scaled from their smallest to largest value.

    Example:
        >>> thumbnail(np.zeros((4, 4), dtype=np.uint8))[:22], thumbnail(b"no image")
        ('data:image/png;base64,', None)
    """
    if image is None:
        return None
    try:
        picture = _decode(image) if isinstance(image, bytes) else _from_pixels(np.asarray(image))
        picture.thumbnail((SIZE, SIZE))
        file = io.BytesIO()
        picture.save(file, "PNG", optimize=True)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        log.debug("an example image cannot be shown: %s", error)
        return None
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _decode(image: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(image), formats=("PNG", "JPEG", "GIF", "WEBP"))
    if picture.width * picture.height > _MAX_PIXELS:
        raise ValueError(f"the image has {picture.width} x {picture.height} pixels")
    return picture.convert("RGBA" if "A" in picture.getbands() else "RGB")


def _from_pixels(pixels: Any) -> Image.Image:
    if pixels.ndim == 1:
        width = round(len(pixels) ** 0.5)
        if width * width != len(pixels):
            raise ValueError(f"{len(pixels)} pixels are no square")
        pixels = pixels.reshape(width, width)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.dtype != np.uint8:
        values = np.nan_to_num(pixels.astype(np.float64))
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
        pixels = ((values - low) * (255 / (high - low) if high > low else 0)).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels))
