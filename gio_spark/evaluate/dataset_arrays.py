"""Conversion of a dataset to plain arrays and back, for broadcasts, files and content hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gio_spark.engine.arrow import text_bytes
from gio_spark.errors import InputError
from gio_spark.evaluate.measure_inputs import MeasureInputs
from gio_spark.strategy.evaluation_dataset import EvaluationDataset

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TEXTS = ("texts", "target_texts", "held_texts")
_INPUTS_PREFIX = "ruler."


def dataset_to_arrays(dataset: EvaluationDataset) -> dict[str, NDArray[Any]]:
    """Arrays of a dataset by name; a text column becomes its bytes and the end of each text.

    Raises:
        InputError: A field has a type that is neither text nor number.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for field in fields(dataset):
        value = getattr(dataset, field.name)
        if value is None:
            continue
        if field.name in _TEXTS:
            arrays |= _texts_to_arrays(field.name, value)
            continue
        array = np.asarray(value)
        if array.dtype == object:
            array = np.asarray(["" if v is None else str(v) for v in array])
        if array.dtype.kind not in "biufU":
            raise InputError(f"The dataset's {field.name} have type {array.dtype}; not shipped.")
        arrays[field.name] = np.ascontiguousarray(array)
    return arrays


def _texts_to_arrays(name: str, texts: pa.Array) -> dict[str, NDArray[Any]]:
    if not isinstance(texts, pa.Array | pa.ChunkedArray):
        texts = pa.array(texts, pa.large_string())
    data, ends = text_bytes(texts)
    return {f"{name}.bytes": data, f"{name}.ends": ends}


def dataset_from_arrays(arrays: Mapping[str, NDArray[Any]]) -> EvaluationDataset:
    """Dataset from the arrays of `dataset_to_arrays`; texts share memory with the arrays."""
    values: dict[str, Any] = {}
    for field in fields(EvaluationDataset):
        if field.name in _TEXTS:
            if f"{field.name}.ends" in arrays:
                values[field.name] = _texts_from_arrays(arrays, field.name)
        elif field.name in arrays:
            values[field.name] = arrays[field.name]
    return EvaluationDataset(**values)


def _texts_from_arrays(arrays: Mapping[str, NDArray[Any]], name: str) -> pa.Array:
    ends = np.ascontiguousarray(arrays[f"{name}.ends"])
    data = np.ascontiguousarray(arrays[f"{name}.bytes"])
    return pa.LargeStringArray.from_buffers(len(ends) - 1, pa.py_buffer(ends), pa.py_buffer(data))


def measure_inputs_to_arrays(inputs: MeasureInputs) -> dict[str, NDArray[Any]]:
    """Arrays of measure inputs, with names that do not collide with those of a dataset."""
    return {_INPUTS_PREFIX + name: array for name, array in inputs.arrays().items()}


def measure_inputs_from_arrays(arrays: Mapping[str, NDArray[Any]]) -> MeasureInputs:
    """Measure inputs from the arrays of `measure_inputs_to_arrays`."""
    fields = {
        name.removeprefix(_INPUTS_PREFIX): array
        for name, array in arrays.items()
        if name.startswith(_INPUTS_PREFIX)
    }
    return MeasureInputs(**fields)


def content_hash(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Hash of names, types, shapes and values of arrays: 32 hexadecimal digits.

    Example:
        >>> content_hash({"x": np.arange(3)}) == content_hash({"x": np.arange(3)})
        True
    """
    sha256 = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        sha256.update(f"{name} {array.dtype.str} {array.shape}\0".encode())
        sha256.update(array.tobytes())
    return sha256.hexdigest()[:32]
