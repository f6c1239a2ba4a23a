"""Mergeable states: named arrays, each with the operator that merges it. No Spark here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from gio_spark.errors import InputError
from gio_spark.gime.distinct_sketch import merge_distinct
from gio_spark.gime.mergeable_sums import merge_histograms

if TYPE_CHECKING:
    from numpy.typing import NDArray

Operator: TypeAlias = Callable[[Sequence["NDArray[Any]"]], "NDArray[Any]"]
Merge: TypeAlias = str | Operator


def _same(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    if any(not np.array_equal(parts[0], other) for other in parts[1:]):
        raise InputError(
            "States made with different constants cannot merge: "
            f"{[p.tolist() for p in parts[:2]]}. Recompute the older ones."
        )
    return parts[0]


# Each operator takes all parts at once. They are associative and commutative to the last bit as
# long as the summed arrays hold integers, which `Accumulator.state` enforces for "sum".
OPERATORS: dict[str, Operator] = {
    "sum": lambda parts: np.asarray(np.stack(parts).sum(axis=0, dtype=np.int64)),
    "min": lambda parts: np.asarray(np.stack(parts).min(axis=0)),
    "max": lambda parts: np.asarray(np.stack(parts).max(axis=0)),
    "histogram": merge_histograms,
    "distinct": merge_distinct,
    "same": _same,
}


@dataclass(frozen=True)
class State:
    """State of one accumulator for some rows.

    Attributes:
        name: The accumulator's name, unique in its profile.
        version: Its format and the constants it depends on; states of two versions never merge.
        fields: Named arrays.
        merges: Per field the name of an operator, or "custom".
    """

    name: str
    version: str
    fields: Mapping[str, NDArray[Any]]
    merges: Mapping[str, str]

    def __getitem__(self, field: str) -> NDArray[Any]:
        """Field's array."""
        return self.fields[field]

    def number(self, field: str) -> int:
        """Field that holds one integer."""
        return int(self.fields[field].reshape(-1)[0])

    def to_bytes(self) -> bytes:
        """Write the state: a length, a JSON header, then the arrays, little endian."""
        header: list[dict[str, Any]] = []
        body: list[bytes] = []
        for field in sorted(self.fields):
            array = np.ascontiguousarray(self.fields[field])
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            header.append(
                {
                    "field": field,
                    "merge": self.merges[field],
                    "dtype": array.dtype.str,
                    "shape": list(array.shape),
                }
            )
            body.append(array.tobytes())
        text = json.dumps([self.name, self.version, header], separators=(",", ":")).encode()
        return len(text).to_bytes(4, "little") + text + b"".join(body)

    @classmethod
    def from_bytes(cls, content: bytes) -> State:
        """Read a state from the bytes of `to_bytes`.

        Raises:
            InputError: The bytes are not a state.
        """
        try:
            size = int.from_bytes(content[:4], "little")
            name, version, header = json.loads(content[4 : 4 + size])
            fields: dict[str, NDArray[Any]] = {}
            at = 4 + size
            for entry in header:
                dtype = np.dtype(entry["dtype"])
                if dtype.hasobject:
                    raise ValueError("object arrays are no states")
                length = int(np.prod(entry["shape"], dtype=np.int64)) * dtype.itemsize
                array = np.frombuffer(content[at : at + length], dtype)
                fields[entry["field"]] = array.reshape(entry["shape"])
                at += length
        except (ValueError, KeyError, TypeError) as problem:
            raise InputError(f"These bytes are not a metric state: {problem}.") from problem
        return cls(name, version, fields, {e["field"]: e["merge"] for e in header})


def merge(parts: Sequence[State], custom: Mapping[str, Merge] | None = None) -> State:
    """Merge states of one accumulator.

    Args:
        parts: At least one state.
        custom: The accumulator's own operators, for fields that are marked "custom".

    Raises:
        InputError: The states differ in name or version, or a custom operator is missing.
    """
    first = parts[0]
    for other in parts[1:]:
        if other.name != first.name or other.version != first.version:
            raise InputError(
                f"State {other.name} {other.version} cannot merge with {first.name} "
                f"{first.version}: they were made with different codebooks, probes, settings or "
                "versions. Recompute the older one."
            )
    if len(parts) == 1:
        return first
    fields = {}
    for field, name in first.merges.items():
        operator = OPERATORS.get(name) or (custom or {}).get(field)
        if not callable(operator):
            raise InputError(
                f"State {first.name}: field {field!r} needs its own merge operator; "
                "register the profile that made it."
            )
        fields[field] = operator([part[field] for part in parts])
    return State(first.name, first.version, fields, first.merges)
