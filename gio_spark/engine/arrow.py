"""Arrow batches in, Arrow batches out: the one way Python code meets Spark rows here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

Produced: TypeAlias = "pa.RecordBatch | pa.Table | Mapping[str, Any]"
MapFunction = Callable[[Iterator[pa.RecordBatch]], Iterable[Produced]]

_SIMPLE = {
    "string": pa.string(),
    "binary": pa.binary(),
    "boolean": pa.bool_(),
    "tinyint": pa.int8(),
    "smallint": pa.int16(),
    "int": pa.int32(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


def output_schema(ddl: str) -> pa.Schema:
    """Parse `name type, name type` into an Arrow schema (simple types and `array<simple>`).

    Raises:
        InputError: A type is not one of those.
    """
    fields = []
    for part in ddl.split(","):
        match = re.fullmatch(r"\s*(\w+)\s+(?:(array)\s*<\s*(\w+)\s*>|(\w+))\s*", part)
        kind = (match.group(3) or match.group(4)).lower() if match else ""
        if match is None or kind not in _SIMPLE:
            raise InputError(f"Cannot read {part.strip()!r} as 'name type' in schema {ddl!r}.")
        arrow = _SIMPLE[kind]
        fields.append(pa.field(match.group(1), pa.list_(arrow) if match.group(2) else arrow))
    return pa.schema(fields)


def rebatch(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Join small batches and cut large ones, so that every batch but the last has `rows` rows."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        if batch.num_rows == 0:
            continue
        held.append(batch)
        count += batch.num_rows
        if count < rows:
            continue
        joined = held[0] if len(held) == 1 else _join(held)
        whole = count - count % rows
        for start in range(0, whole, rows):
            yield joined.slice(start, rows)
        held = [joined.slice(whole)] if whole < count else []
        count -= whole
    if held:
        yield held[0] if len(held) == 1 else _join(held)


def _join(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    table = pa.Table.from_batches(batches).combine_chunks()
    return table.to_batches(max_chunksize=table.num_rows)[0]


def conform(produced: Produced, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Cast columns by name to the declared schema.

    Spark matches output columns by position and accepts a wrong name silently, and answers a wrong
    type with an obscure error; so both are settled here.
    """
    if isinstance(produced, Mapping):
        produced = pa.table(dict(produced))
    missing = [name for name in schema.names if name not in produced.schema.names]
    if missing:
        raise InputError(
            f"A map function gave columns {produced.schema.names} and lacks {missing}."
        )
    table = produced if isinstance(produced, pa.Table) else pa.Table.from_batches([produced])
    table = table.select(schema.names)
    if table.schema.types != schema.types:
        table = table.cast(schema)
    yield from (pa.RecordBatch.from_arrays(b.columns, schema=schema) for b in table.to_batches())


def _as_schema(schema: str | pa.Schema) -> pa.Schema:
    return output_schema(schema) if isinstance(schema, str) else schema


def _spark_schema(schema: pa.Schema) -> Any:
    from pyspark.sql.pandas.types import from_arrow_schema

    return from_arrow_schema(schema)


def map_arrow(
    df: DataFrame,
    fn: MapFunction,
    schema: str | pa.Schema,
    *,
    batch_rows: int = 8192,
) -> DataFrame:
    """Run `fn` over the Arrow batches of each partition.

    Args:
        df: Rows to map.
        fn: Takes an iterator of record batches (at most `batch_rows` rows each), gives record
            batches, tables or column mappings. Its result must not depend on where batches end.
        schema: Output schema, as DDL text of simple types or as an Arrow schema.
        batch_rows: Rows per batch; engines cut batches of very different sizes themselves.
    """
    declared = _as_schema(schema)

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for produced in fn(rebatch(batches, batch_rows)):
            yield from conform(produced, declared)

    return df.mapInArrow(run, _spark_schema(declared))


def group_arrow(
    df: DataFrame,
    keys: str | Sequence[str],
    fn: Callable[[pa.Table], Produced],
    schema: str | pa.Schema,
) -> DataFrame:
    """Run `fn` once per group of rows with equal keys; each group must fit one worker."""
    declared = _as_schema(schema)
    names = [keys] if isinstance(keys, str) else list(keys)

    def run(table: pa.Table) -> pa.Table:
        return pa.Table.from_batches(conform(fn(table), declared), schema=declared)

    return df.groupBy(*names).applyInArrow(run, _spark_schema(declared))


def encode_vectors(matrix: NDArray[np.float32]) -> pa.BinaryArray:
    """Encode a float32 matrix (n, d) as n binary values, little endian, without a row loop."""
    matrix = np.ascontiguousarray(matrix, dtype="<f4")
    n, d = matrix.shape
    width = 4 * d
    if n * width > np.iinfo(np.int32).max:
        raise InputError(f"{n} vectors of {d} numbers do not fit one Arrow batch; cut it smaller.")
    offsets = np.arange(n + 1, dtype=np.int32) * np.int32(width)
    return pa.Array.from_buffers(
        pa.binary(), n, [None, pa.py_buffer(offsets), pa.py_buffer(matrix.reshape(-1))]
    )


def decode_vectors(
    array: pa.Array | pa.ChunkedArray,
    dimension: int | None = None,
    *,
    what: str = "column 'vector'",
) -> NDArray[np.float32]:
    """Decode BINARY float32 or lists of numbers to a float32 matrix (n, d), zero-copy if it can.

    Args:
        array: n vectors.
        dimension: d, where it is known.
        what: Whose vectors these are, for the message.

    Raises:
        InputError: A value is null, or lengths differ, or they are not `dimension`.
    """
    if isinstance(array, pa.ChunkedArray):
        array = (
            (array.chunk(0) if array.num_chunks == 1 else pa.concat_arrays(array.chunks))
            if array.num_chunks
            else pa.array([], array.type)
        )
    if array.null_count:
        raise InputError(
            f"{what}: {array.null_count:,} of {len(array):,} vectors are null. Leave such rows "
            "out, as a run does by putting them into quarantine."
        )
    n = len(array)
    kind = array.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        wide = np.int64 if pa.types.is_large_binary(kind) else np.int32
        offsets = np.frombuffer(array.buffers()[1], wide)[array.offset : array.offset + n + 1]
        d = _common_length(np.diff(offsets), n, 4, dimension, what)
        if n == 0:
            return np.empty((0, d), np.float32)
        flat = np.frombuffer(array.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
        return flat.view("<f4").reshape(n, d)
    if pa.types.is_fixed_size_list(kind):
        array = array.cast(pa.list_(kind.value_type))
        kind = array.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        raise InputError(
            f"{what}: vectors must be BINARY float32 or arrays of numbers, not {kind}."
        )
    lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
    d = _common_length(lengths, n, 1, dimension, what)
    values = array.flatten()
    if values.null_count:
        raise InputError(
            f"{what}: {values.null_count:,} numbers inside vectors are null. Leave such rows out."
        )
    if not pa.types.is_float32(values.type):
        values = values.cast(pa.float32(), safe=False)
    return values.to_numpy(zero_copy_only=False).reshape(n, d)


def _common_length(
    lengths: NDArray[Any], n: int, unit: int, dimension: int | None, what: str
) -> int:
    """Return the one length all vectors have, in numbers, or say which lengths were found."""
    if n == 0:
        return dimension or 0
    low, high = int(lengths.min()), int(lengths.max())
    if low != high or low % unit or (dimension is not None and low // unit != dimension):
        wanted = f"{dimension}" if dimension is not None else "one common number"
        raise InputError(
            f"{what}: {n:,} vectors have {low / unit:g} to {high / unit:g} numbers where {wanted} "
            "is expected. Leave rows of another length out, or embed them with the same embedder."
        )
    return low // unit
