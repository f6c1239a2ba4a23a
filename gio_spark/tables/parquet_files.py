"""Parquet files with columns that an engine would misread or refuse, read by Arrow on workers."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from gio_spark.engine import describe, map_arrow
from gio_spark.errors import InputError
from gio_spark.tables.column_types import (
    carried_schema,
    carried_table,
    carried_type,
    check_columns,
    check_unique,
    is_read_by_engines,
    uncarried_columns,
)
from gio_spark.tables.engine_paths import engine_path
from gio_spark.tables.file_list import FileList, filesystem, partition_values, relative_path
from gio_spark.tables.identifiers import is_remote_path
from gio_spark.tables.spark_files import literal_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import DataFrame, SparkSession

_BATCH_ROWS = 4_096
# Bytes of a column that a read holds; by default Arrow holds the columns of a whole row group.
_READ_BYTES = 8 << 20
# Spark reads a row group in one task, which holds its columns in the heap: two of 1.5 GB (a million
# rows of 384 floats, as pyarrow groups them) end an executor of 4 GB. Larger groups than this are
# read by Arrow, by several tasks of about `_SLICE_BYTES` each.
GROUP_BYTES = 192 << 20
_SLICE_BYTES = 128 << 20
# Files whose footers the driver reads to share out their row groups; of more, each is one part.
_FOOTERS = 64
_ALL_GROUPS = -1
_ALL_ROWS = 1 << 62
# Files whose columns are looked at; of more, the others must have the same.
_SCHEMAS = 1_000
_AT_ONCE = 16
_SPARK_SCHEMA = b"org.apache.spark.sql.parquet.row.metadata"
_OWN_TYPE = re.compile(r'"(variant|udt|interval[^"]*|time\([^"]*)"')

Engine: TypeAlias = Literal["embedded", "spark"]


@dataclass(frozen=True)
class _FileSchema:
    """Columns of one file.

    Attributes:
        path: Of the file.
        read: As Arrow reads them.
        written: As whoever wrote them had them.
        has_int96: Whether it has times of 96 bits, which Spark reads as instants and the embedded
            engine as times without a zone.
        own_types: Column -> type of Spark's own (udt, interval) that its Parquet type is not.
        variants: Columns of VARIANT, which are not in the schemas, with their writer's mark: each
            engine reads its own, and takes others for structs of bytes.
        group_bytes: Bytes of the largest row group, decompressed.
    """

    path: str
    read: pa.Schema
    written: pa.Schema
    has_int96: bool
    own_types: Mapping[str, str]
    variants: Mapping[str, Engine]
    group_bytes: int

    @property
    def is_read_by_engines(self) -> bool:
        """Whether every engine reads all columns right."""
        clash = len({column.lower() for column in self.read.names}) < len(self.read.names)
        # The embedded engine goes by the types that stand in the file as they were written.
        fields = (*self.read, *self.written)
        return not clash and all(is_read_by_engines(field.type) for field in fields)

    def types(self, dropped: Sequence[str]) -> list[dict[str, pa.DataType]]:
        """Column -> type as it is read and as it was written, without the dropped ones."""
        both = (self.read, self.written)
        types = [{f.name: f.type for f in one if f.name not in dropped} for one in both]
        return [*types, {name: pa.null() for name in self.variants if name not in dropped}]


def schemas_of(files: FileList) -> list[_FileSchema]:
    """Columns of each file, of the first ones where there are many.

    Files whose footer cannot be read (empty, broken or encrypted ones) are left to the engine.
    """
    store, _ = filesystem(files.root)

    def look(path: str) -> _FileSchema | None:
        try:
            with store.open_input_file(path) as file:
                footer = pq.read_metadata(file)
        except (pa.ArrowException, OSError):
            return None
        schema = footer.schema.to_arrow_schema()
        metadata = footer.metadata or {}
        stored = metadata.get(b"ARROW:schema")
        written = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(stored))) if stored else schema
        own_types = _spark_types(metadata.get(_SPARK_SCHEMA))
        variants = _variants(own_types, written)
        int96 = {c.path for c in footer.schema if c.physical_type == "INT96"}
        read, as_written = (
            _with_instants(pa.schema([f for f in one if f.name not in variants]), int96)
            for one in (schema, written)
        )
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        group_bytes = max((group.total_byte_size for group in groups), default=0)
        return _FileSchema(path, read, as_written, bool(int96), own_types, variants, group_bytes)

    paths = [file.path for file in files.files[:_SCHEMAS] if file.length]
    with ThreadPoolExecutor(_AT_ONCE, "gio-spark-footers") as pool:
        return [schema for schema in pool.map(look, paths) if schema is not None]


def _spark_types(stored: bytes | None) -> dict[str, str]:
    """Columns of types of Spark's own, from the schema that Spark stores in its files."""
    fields = json.loads(stored)["fields"] if stored else []
    types = {field["name"]: _OWN_TYPE.search(json.dumps(field["type"])) for field in fields}
    return {name: kind.group(1) for name, kind in types.items() if kind is not None}


def _variants(own_types: dict[str, str], written: pa.Schema) -> dict[str, Engine]:
    """Columns of VARIANT with the engine that reads them; they are taken out of `own_types`."""
    variants: dict[str, Engine] = {}
    for field in written:
        if b"variant" in (field.metadata or {}).get(b"ARROW:extension:name", b""):
            variants[field.name] = "embedded"
        if own_types.get(field.name) == "variant":
            variants[field.name] = "spark"
            del own_types[field.name]
    return variants


def _with_instants(schema: pa.Schema, int96: set[str]) -> pa.Schema:
    """Schema in which times of 96 bits are what Spark writes as such: instants of microseconds.

    Arrow takes them for nanoseconds, in which years after 2262 have no place.
    """
    return pa.schema(
        [
            f.with_type(_instants(f.type))
            if any(path == f.name or path.startswith(f"{f.name}.") for path in int96)
            else f
            for f in schema
        ]
    )


def _instants(kind: pa.DataType) -> pa.DataType:
    """Type with instants of microseconds in place of nanoseconds without a zone."""
    if pa.types.is_struct(kind):
        return pa.struct([f.with_type(_instants(f.type)) for f in kind])
    if pa.types.is_map(kind):
        return pa.map_(_instants(kind.key_type), _instants(kind.item_type))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_instants(kind.value_type))
    return pa.timestamp("us", tz="UTC") if kind == pa.timestamp("ns") else kind


def _schema_of_all(
    name: str, root: str, schemas: Sequence[_FileSchema], dropped: Sequence[str]
) -> pa.Schema:
    """Columns of all files, in types that hold the values of each of them.

    Raises:
        InputError: Files have a column in types that have none in common.
    """
    kinds: dict[str, pa.DataType] = {}
    known = {f.name for one in schemas for f in one.read if not pa.types.is_null(f.type)}
    for one in schemas:
        for field in carried_schema(one.read, dropped):
            if field.name in known and pa.types.is_null(one.read.field(field.name).type):
                continue  # a file without a value has no type
            before = kinds.setdefault(field.name, field.type)
            if before == field.type:
                continue
            pair = [pa.schema([(field.name, kind)]) for kind in (before, field.type)]
            try:
                both = pa.unify_schemas(pair, promote_options="permissive")
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise InputError(
                    f"{name}: column {field.name!r} of {root} is {before} in some files and "
                    f"{field.type} in {one.path}. Write it as one type, or leave it out: "
                    f"columns.drop: [{field.name}]."
                ).about(location=root, column=field.name) from error
            kinds[field.name] = carried_type(both.field(0).type) or both.field(0).type
    return pa.schema(list(kinds.items()))


@dataclass(frozen=True)
class ParquetRows:
    """Rows of Parquet files.

    Attributes:
        rows: All of them.
        narrow: The same rows for reads of few columns; a map by Arrow always reads all.
        reading: By what they are read, and their types.
        rows_of: Makes rows of some of the files; None where the engine cannot.
    """

    rows: DataFrame
    narrow: DataFrame
    reading: str
    rows_of: Callable[[FileList], DataFrame] | None


def _rows_by_arrow(
    spark: SparkSession, name: str, location: str, files: FileList, dropped: Sequence[str]
) -> ParquetRows | None:
    """Rows that engines would misread, in types that hold their values, or that Spark cannot split.

    Args:
        spark: Session.
        name: Of the input, for messages.
        location: Of the files.
        files: Its files.
        dropped: Columns that are left out.

    Returns:
        None where the engine reads the files and all their columns right.

    Raises:
        InputError: A column cannot be carried, or several have one name.
    """
    if files.spark is not None:
        return None  # workers cannot open the files
    root = files.root
    schemas = schemas_of(files)
    if not schemas:
        return None
    for one in schemas:
        place = root if len(schemas) == 1 else one.path
        check_columns(name, place, one.read, dropped)
        own_types = {c: kind for c, kind in one.own_types.items() if c not in dropped}
        if own_types:
            raise uncarried_columns(name, place, own_types)
    common_schema = _schema_of_all(name, root, schemas, dropped)
    check_unique(name, root, common_schema.names)
    is_embedded = describe(spark).kind == "embedded"
    # Engines read all files of a folder, those that are left out as well, and one of them takes
    # the columns of one file for those of all.
    alike = all(one.types(dropped) == schemas[0].types(dropped) for one in schemas)
    right = all(one.is_read_by_engines and not (is_embedded and one.has_int96) for one in schemas)
    by_engine = alike and right and not files.left_out
    engine = "embedded" if is_embedded else "spark"
    for one in schemas:
        for column, writer in one.variants.items():
            if column not in dropped and not (by_engine and writer == engine):
                raise InputError(
                    f"{name}: column {column!r} of {one.path} is VARIANT, which would become its "
                    "bytes here. Write it as a Delta table or as text (to_json), or leave it out: "
                    f"columns.drop: [{column}]."
                ).about(location=root, column=column)
    is_large = max(one.group_bytes for one in schemas) > GROUP_BYTES
    by_slices = is_large and not is_embedded and not is_remote_path(root)
    if by_engine and not by_slices:
        return None
    folders = partition_values(root, files.files[0].path)
    carried = pa.schema([*common_schema, *((column, pa.string()) for column in folders)])

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        for batch in batches:
            for piece in (_Piece(**row) for row in batch.to_pylist()):
                try:
                    yield from read_piece(piece)
                except pa.ArrowException as error:
                    # Before 26, for one, pyarrow reads no null among lists of a fixed size.
                    raise InputError(
                        f"{name}: {piece.path} cannot be read by pyarrow {pa.__version__}: "
                        f"{error}. Write the file again, or install a newer pyarrow."
                    ) from error

    def read_piece(piece: _Piece) -> Iterator[pa.Table]:
        store, _ = filesystem(root)
        values = partition_values(root, piece.path)
        with (
            store.open_input_file(piece.path) as stream,
            pq.ParquetFile(
                stream,
                coerce_int96_timestamp_unit="us",
                pre_buffer=False,
                buffer_size=_READ_BYTES,
            ) as file,
        ):
            groups = None if piece.group == _ALL_GROUPS else [piece.group]
            names = [n for n in file.schema_arrow.names if n in carried.names]
            batches = file.iter_batches(_BATCH_ROWS, row_groups=groups, columns=names)
            for rows in _rows_between(batches, piece.first, piece.end):
                table = pa.Table.from_batches([rows])
                for column, value in values.items():
                    table = table.append_column(
                        column, pa.array([value] * table.num_rows, pa.string())
                    )
                yield carried_table(table, carried, f"{name}: {piece.path}")

    def rows_of(some: FileList) -> DataFrame:
        pieces = list(_pieces(some, by_slices=by_slices))
        work = pa.Table.from_pylist([asdict(piece) for piece in pieces])
        # From one partition rows are dealt out in turn: the same number of pieces for each task.
        work_rows = spark.createDataFrame(work).coalesce(1).repartition(min(len(pieces), 1024))
        return map_arrow(work_rows, read, carried, batch_rows=1)

    rows = rows_of(files)
    narrow = _rows_by_engine(spark, location, files) if by_engine else rows
    return ParquetRows(rows, narrow, f"arrow {carried}", rows_of)


@dataclass(frozen=True)
class _Piece:
    """Rows of a file that one task reads: those from `first` up to `end` of a row group, or all."""

    path: str
    group: int = _ALL_GROUPS
    first: int = 0
    end: int = _ALL_ROWS


def _pieces(files: FileList, *, by_slices: bool) -> Iterator[_Piece]:
    """Row groups of few files, slices of large ones where these are wanted; else whole files."""
    store, _ = filesystem(files.root)
    for path, length, _ in files.files:
        if not length:
            continue
        if len(files.files) > _FOOTERS:
            yield _Piece(path)
            continue
        with store.open_input_file(path) as file:
            footer = pq.read_metadata(file)
        for number in range(footer.num_row_groups):
            group = footer.row_group(number)
            count = -(-group.total_byte_size // _SLICE_BYTES) if by_slices else 1
            step = max(1, -(-group.num_rows // max(1, count)))
            for first in range(0, group.num_rows, step):
                yield _Piece(path, number, first, first + step)


def _rows_between(
    batches: Iterable[pa.RecordBatch], first: int, end: int
) -> Iterator[pa.RecordBatch]:
    """Rows of consecutive batches from `first` up to `end`, which is not among them."""
    start = 0
    for batch in batches:
        if start >= end:
            return
        begin = max(first - start, 0)
        if begin < batch.num_rows:
            yield batch.slice(begin, min(end - start, batch.num_rows) - begin)
        start += batch.num_rows


def parquet_rows(
    spark: SparkSession, name: str, location: str, files: FileList, dropped: Sequence[str]
) -> ParquetRows:
    """Rows of Parquet files: read by the engine, or by Arrow where it would misread a column.

    Spark cannot split large row groups; Arrow reads these as well.

    Args:
        spark: Session.
        name: Of the input, for messages.
        location: Of the files.
        files: The files.
        dropped: Columns that are left out; the engine may give them still.

    Raises:
        InputError: A column cannot be carried, or several have one name.
    """
    rows = _rows_by_arrow(spark, name, location, files, dropped)
    if rows is None:
        return _engine_rows(spark, location, files)
    return rows


def uncarried_columns_of(files: FileList) -> list[str]:
    """Columns in types that no table can carry."""
    if files.spark is not None:
        return []
    names = [
        name
        for one in schemas_of(files)
        for name in (*(f.name for f in one.read if carried_type(f.type) is None), *one.own_types)
    ]
    return list(dict.fromkeys(names))


def _engine_rows(spark: SparkSession, location: str, files: FileList) -> ParquetRows:
    rows = _rows_by_engine(spark, location, files)
    is_embedded = describe(spark).kind == "embedded"
    # The embedded engine finds no values of partition folders above the files that it is given.
    if is_embedded and partition_values(files.root, files.files[0].path):
        return ParquetRows(rows, rows, "", None)

    def rows_of(some: FileList) -> DataFrame:
        reader = spark.read.schema(rows.schema)
        paths = [file.path for file in some.files]
        if is_embedded:
            return reader.parquet(*(engine_path(spark, path) for path in paths))
        return reader.option("basePath", location).parquet(*map(literal_path, paths))

    return ParquetRows(rows, rows, f"engine {rows.schema}", rows_of)


def _rows_by_engine(spark: SparkSession, location: str, files: FileList) -> DataFrame:
    reader = spark.read
    folders = {relative_path(files.root, f.path).parent for f in files.files}
    # Spark passes over files in plain folders below the location, which the embedded engine reads.
    if describe(spark).kind != "embedded" and _are_nested(folders):
        reader = reader.option("recursiveFileLookup", value=True)
    if files.spark is None:
        return reader.parquet(engine_path(spark, location))
    # Spark takes the columns of one file for those of all, unless it is told to look at each.
    reader = reader.option("mergeSchema", value=True).option("basePath", location)
    paths = [literal_path(f.path) for f in files.files] if files.left_out else [location]
    return reader.parquet(*paths)


def _are_nested(folders: set[PurePosixPath]) -> bool:
    """Whether files lie in folders below the root that are no partitions."""
    below = [folder.parts for folder in folders]
    return any(below) and not any("=" in part for parts in below for part in parts)
