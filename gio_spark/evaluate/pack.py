"""A dataset as plain arrays and back, so that it can be shipped to workers and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gio_spark.engine.arrow import text_bytes
from gio_spark.errors import InputError
from gio_spark.evaluate.dataset import EvaluationDataset
from gio_spark.evaluate.measure_inputs import MeasureInputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TEXTS = ("texts", "target_texts", "held_texts")
_RULER = "ruler."


def pack(dataset: EvaluationDataset) -> dict[str, NDArray[Any]]:
    """Dataset as arrays by name; a text column is its bytes and where each text ends.

    Raises:
        InputError: A field holds Python objects that are neither texts nor numbers.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for field in fields(dataset):
        value = getattr(dataset, field.name)
        if value is None:
            continue
        if field.name in _TEXTS:
            arrays |= _pack_texts(field.name, value)
            continue
        array = np.asarray(value)
        if array.dtype == object:
            array = np.asarray(["" if v is None else str(v) for v in array])
        if array.dtype.kind not in "biufU":
            raise InputError(f"The dataset's {field.name} have type {array.dtype}; not shipped.")
        arrays[field.name] = np.ascontiguousarray(array)
    return arrays


def _pack_texts(name: str, texts: pa.Array) -> dict[str, NDArray[Any]]:
    if not isinstance(texts, pa.Array | pa.ChunkedArray):
        texts = pa.array(texts, pa.large_string())
    data, ends = text_bytes(texts)
    return {f"{name}.bytes": data, f"{name}.ends": ends}


def unpack(arrays: Mapping[str, NDArray[Any]]) -> EvaluationDataset:
    """Dataset that `pack` took apart; texts share memory with the arrays."""
    values: dict[str, Any] = {}
    for field in fields(EvaluationDataset):
        if field.name in _TEXTS:
            if f"{field.name}.ends" in arrays:
                values[field.name] = _unpack_texts(arrays, field.name)
        elif field.name in arrays:
            values[field.name] = arrays[field.name]
    return EvaluationDataset(**values)


def _unpack_texts(arrays: Mapping[str, NDArray[Any]], name: str) -> pa.Array:
    ends = np.ascontiguousarray(arrays[f"{name}.ends"])
    data = np.ascontiguousarray(arrays[f"{name}.bytes"])
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(data)]
    return pa.LargeStringArray.from_buffers(len(ends) - 1, buffers[1], buffers[2])


def pack_ruler(ruler: MeasureInputs) -> dict[str, NDArray[Any]]:
    """Ruler as arrays whose names do not collide with a dataset's."""
    return {_RULER + name: array for name, array in ruler.arrays().items()}


def unpack_ruler(arrays: Mapping[str, NDArray[Any]]) -> MeasureInputs:
    """Ruler that `pack_ruler` took apart."""
    own = {k.removeprefix(_RULER): v for k, v in arrays.items() if k.startswith(_RULER)}
    return MeasureInputs(**own)


def digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """32 hex characters that stand for the content of the arrays."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype.str} {array.shape}\0".encode())
        found.update(array.tobytes())
    return found.hexdigest()[:32]
