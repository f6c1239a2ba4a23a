"""Named arrays in the `models` table: fitted state without pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from gio_spark.errors import WorkspaceError
from gio_spark.tables.workspace import Workspace

_SCHEMA = pa.schema(
    [
        pa.field("model", pa.string()),
        pa.field("name", pa.string()),
        pa.field("type", pa.string()),
        pa.field("shape", pa.string()),
        pa.field("content", pa.binary()),
    ]
)
_ALLOWED = set("biuf")


def save_arrays(
    workspace: Workspace, model: str, arrays: Mapping[str, np.ndarray], *, key: str, run: str
) -> int:
    """Write the arrays of one fitted model; returns the rows written."""
    rows: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}
    for name, array in arrays.items():
        plain = np.ascontiguousarray(array)
        if plain.dtype.kind not in _ALLOWED:
            raise WorkspaceError(f"Array {name!r} of {model} has type {plain.dtype}; not stored.")
        rows["model"].append(model)
        rows["name"].append(name)
        rows["type"].append(plain.dtype.newbyteorder("<").str)
        rows["shape"].append(json.dumps(plain.shape))
        rows["content"].append(plain.astype(plain.dtype.newbyteorder("<")).tobytes())
    table = pa.table(rows, schema=_SCHEMA)
    return workspace.write_arrow("models", table, fingerprint=key, run=run, stage=model)


def load_arrays(workspace: Workspace, fingerprint: str) -> dict[str, np.ndarray]:
    """Read the arrays that were saved under a fingerprint; empty where there are none."""
    if not workspace.exists("models"):
        return {}
    rows = workspace.read_arrow("models", fingerprint, 1000, "arrays of a model").to_pylist()
    out = {}
    for row in rows:
        kind = np.dtype(row["type"])
        if kind.kind not in _ALLOWED:
            raise WorkspaceError(f"The models table holds an array of type {kind}; refused.")
        array = np.frombuffer(row["content"], kind).reshape(json.loads(row["shape"]))
        out[row["name"]] = array
    return out


def text_array(value: Any) -> np.ndarray:
    """A JSON value as bytes, to be stored beside arrays."""
    return np.frombuffer(json.dumps(value).encode(), np.uint8).copy()


def array_text(array: np.ndarray) -> Any:
    """The JSON value of `text_array`."""
    return json.loads(np.asarray(array, np.uint8).tobytes())
