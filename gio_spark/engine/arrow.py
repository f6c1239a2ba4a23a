"""Arrow batches in, Arrow batches out: the one way Python code meets Spark rows here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.engine.row_counter import count_rows, current_label
from gio_spark.errors import InputError
from gio_spark.process import one_blas_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

Produced: TypeAlias = "pa.RecordBatch | pa.Table | Mapping[str, Any]"
MapFunction = Callable[[Iterator[pa.RecordBatch]], Iterable[Produced]]

MAX_BYTES = 64 << 20
"""Bytes of a batch, beyond which it is cut: long texts and images make few rows large."""

_PLAIN_NAME = re.compile(r"\w+")

# Offsets of string, binary and list are int32.
_NARROW = (1 << 31) - 1
_WIDE_TEXT = pa.large_string()

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


def rebatch(
    batches: Iterable[pa.RecordBatch], rows: int, max_bytes: int = MAX_BYTES
) -> Iterator[pa.RecordBatch]:
    """Join small batches and cut large ones, by rows and by bytes; no row is lost or moved.

    Args:
        batches: Record batches of one schema, of any size.
        rows: Most rows of a batch; all but the last have as many, where bytes allow.
        max_bytes: Most bytes of a batch. A row that has more is a batch of its own.
    """
    buffered: list[pa.RecordBatch] = []
    count = size = 0
    for batch in batches:
        start = 0
        while start < batch.num_rows:
            fitting, taken = _fitting(batch, start, rows - count, max_bytes - size)
            if not fitting and buffered:
                yield from _join(buffered)
                buffered, count, size = [], 0, 0
                continue
            step = max(fitting, 1)
            buffered.append(batch.slice(start, step))
            start, count, size = start + step, count + step, size + taken
            if count >= rows or size >= max_bytes or not fitting:
                yield from _join(buffered)
                buffered, count, size = [], 0, 0
    if buffered:
        yield from _join(buffered)


def _fitting(batch: pa.RecordBatch, start: int, rows: int, max_bytes: int) -> tuple[int, int]:
    """Return how many rows from `start` on keep within both bounds, and their bytes."""
    most = min(rows, batch.num_rows - start)
    size = _bytes_of(batch.slice(start, most))
    if size <= max_bytes:
        return most, size
    fits, fitting_size, too_many = 0, 0, most
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        size = _bytes_of(batch.slice(start, middle))
        if size <= max_bytes:
            fits, fitting_size = middle, size
        else:
            too_many = middle
    return fits, fitting_size


def _bytes_of(batch: pa.RecordBatch) -> int:
    """Return the bytes of a batch's own rows, not of the batch that it was cut from."""
    return sum(_column_bytes(column) for column in batch.columns)


def _column_bytes(column: pa.Array) -> int:
    kind = column.type
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        # A slice of views still has all the bytes that its whole points to.
        flat = column.cast(pa.large_binary() if pa.types.is_binary_view(kind) else _WIDE_TEXT)
        return int(flat.nbytes)
    if pa.types.is_dictionary(kind):
        # The dictionary is there once, however its rows are cut.
        return int(column.indices.nbytes)
    return int(column.nbytes)


def _join(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Return batches as one; as several where a column of it would pass what Arrow can hold."""
    if len(batches) == 1:
        return batches
    table = pa.Table.from_batches(batches).combine_chunks()
    return table.to_batches(max_chunksize=table.num_rows)


def joined(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, of the `large` type where its own ends at 2 GiB."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    if column.num_chunks == 1:
        return column.chunks[0]
    if column.nbytes > _NARROW:
        wide = _wide(column.type)
        column = column.cast(wide) if wide != column.type else column
    return column.combine_chunks()


def take_rows(table: pa.Table, index: pa.Array) -> pa.Table:
    """Return rows of a table in a given order; columns above 2 GiB become of the `large` type."""
    for at, field in enumerate(table.schema):
        column = table.column(at)
        wide = _wide(field.type)
        # Arrow joins the chunks of a column before it takes from them.
        if wide != field.type and column.nbytes > _NARROW:
            table = table.set_column(at, field.name, column.cast(wide))
    return table.take(index)


def _wide(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string(kind):
        return _WIDE_TEXT
    if pa.types.is_binary(kind):
        return pa.large_binary()
    if pa.types.is_list(kind):
        return pa.large_list(_wide(kind.value_type))
    return kind


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
    cast = table.schema.types != schema.types
    # Cut before the cast: large_string holds more than the string that a schema may ask for.
    for batch in _cut(table.to_batches()):
        columns = batch.columns
        if cast:
            columns = [_as(c, field.type) for c, field in zip(columns, schema, strict=True)]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _as(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cast a column that is a slice of a longer one."""
    if column.type == kind:
        return column
    if column.type == _wide(kind):
        # The cast looks at where values lie in the whole, and refuses those beyond 2 GiB.
        column = pa.concat_arrays([column])
    return column.cast(kind)


def _cut(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Cut batches by bytes and join none."""
    for batch in batches:
        yield from rebatch([batch], max(1, batch.num_rows))


def _as_schema(schema: str | pa.Schema) -> pa.Schema:
    return output_schema(schema) if isinstance(schema, str) else schema


def _spark_schema(schema: pa.Schema) -> Any:
    from pyspark.sql.pandas.types import from_arrow_schema

    # Of Spark 4.0 the default is another one.
    return from_arrow_schema(schema, prefer_timestamp_ntz=True)


def map_arrow(
    df: DataFrame,
    fn: MapFunction,
    schema: str | pa.Schema,
    *,
    batch_rows: int = 8192,
    batch_bytes: int = MAX_BYTES,
) -> DataFrame:
    """Run `fn` over the Arrow batches of each partition, with BLAS on one thread.

    Args:
        df: Rows to map.
        fn: Takes an iterator of record batches (at most `batch_rows` rows each), gives record
            batches, tables or column mappings. Its result must not depend on where batches end.
        schema: Output schema, as DDL text of simple types or as an Arrow schema.
        batch_rows: Rows per batch; engines cut batches of very different sizes themselves.
        batch_bytes: Bytes per batch; see `rebatch`.
    """
    declared = _as_schema(schema)
    names = _special_names(df)
    label = current_label()
    if names:
        df = df.toDF(*[f"column_{i}" for i in range(len(names))])

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        if names:
            batches = (batch.rename_columns(names) for batch in batches)
        with one_blas_thread():
            for produced in fn(rebatch(batches, batch_rows, batch_bytes)):
                for batch in conform(produced, declared):
                    count_rows(label, batch.num_rows)
                    yield batch

    return df.mapInArrow(run, _spark_schema(declared))


def arrow_fields(df: DataFrame) -> list[pa.Field]:
    """Columns of a frame as Arrow fields of the schema of a map that passes them through."""
    from pyspark.sql.pandas.types import to_arrow_type
    from pyspark.sql.types import TimestampType

    # The name of the time zone parameter of to_arrow_type differs between Spark versions.
    return [
        pa.field(
            f.name,
            pa.timestamp("us", tz="UTC")
            if isinstance(f.dataType, TimestampType)
            else to_arrow_type(f.dataType),
        )
        for f in df.schema.fields
    ]


def _special_names(df: DataFrame) -> list[str]:
    """Names of all columns where one of them is not plain: maps name columns without quotes.

    Of a column named `doc.text` they would read the field `text` of `doc`.
    """
    return df.columns if any(not _PLAIN_NAME.fullmatch(name) for name in df.columns) else []


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
        with one_blas_thread():
            return pa.Table.from_batches(conform(fn(table), declared), schema=declared)

    return df.groupBy(*names).applyInArrow(run, _spark_schema(declared))


def encode_vectors(matrix: NDArray[np.float32]) -> pa.Array:
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
    array = joined(array)
    if array.null_count:
        raise InputError(
            f"{what}: {array.null_count:,} of {len(array):,} vectors are null. Leave such rows "
            "out, as a run does by putting them into quarantine."
        )
    n = len(array)
    kind = array.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        flat, offsets = bytes_of(array)
        d = _common_length(np.diff(offsets), n, 4, dimension, what)
        if n == 0:
            return np.empty((0, d), np.float32)
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
        expected = f"{dimension}" if dimension is not None else "one common number"
        raise InputError(
            f"{what}: {n:,} vectors have {low / unit:g} to {high / unit:g} numbers where "
            f"{expected} is expected. Leave rows of another length out, or embed "
            "them with the same embedder."
        )
    return low // unit


def text_bytes(texts: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Bytes of an array of texts and where each begins (n + 1); a null is empty."""
    texts = joined(texts)
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        texts = texts.cast(pa.large_string())
    return bytes_of(texts.fill_null("") if texts.null_count else texts)


def bytes_of(array: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Bytes of an array of texts or binary values without nulls, not copied.

    Returns:
        The bytes of all values one after the other, and where each begins (n + 1).
    """
    wide = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
    _, ends, data = array.buffers()
    if not len(array) or data is None:
        return np.empty(0, np.uint8), np.zeros(len(array) + 1, np.int64)
    offsets = np.frombuffer(memoryview(ends), np.int64 if wide else np.int32)
    offsets = offsets[array.offset : array.offset + len(array) + 1].astype(np.int64)
    return np.frombuffer(memoryview(data), np.uint8)[offsets[0] : offsets[-1]], offsets - offsets[0]
