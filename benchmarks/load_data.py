"""Rows for bench_load: a clustered mixture as Parquet files, in several layouts of the same size.

Rows come in pieces, each with a generator of its own, so that no process holds all of them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PLACES = 2_000
TARGET_PLACES = 40
TARGET_ROWS = 4_000
MOST_PIECE_ROWS = 32_768
FILES, SMALL_FILES = 24, 8
SOURCES = ("web", "books", "code", "mail", "talk")
LAYOUTS = ("even", "one file", "one group", "one cluster")
"""Layouts: even files; 90 % of the rows in one file; the same in row groups of a million rows, as
pyarrow writes by default; even files with half of all rows in one cluster."""

COLUMNS = {
    "id": "id",
    "vector": "vector",
    "tokens": "tokens",
    "quality": "quality",
    "source": "source",
}


def piece_rows(rows: int) -> int:
    """Rows of a piece: a hundredth of a small pool, so that every layout has its files."""
    return min(MOST_PIECE_ROWS, max(1_024, rows // 100))


def places(dimension: int) -> np.ndarray:
    """Centers of the mixture, float32 (PLACES, dimension)."""
    return np.random.default_rng(0).standard_normal((PLACES, dimension), dtype=np.float32)


def piece(name: str, number: int, rows: int, dimension: int, *, dense: bool = False) -> pa.Table:
    """Rows of one piece.

    Args:
        name: First letters of the ids.
        number: Of the piece; with the name it is the seed.
        rows: Rows of the piece.
        dimension: d.
        dense: Whether half of the rows are in one place, close together.
    """
    random = np.random.default_rng([len(name), ord(name[0]), number])
    # Places differ in size: the largest has about 40 times the rows of the median.
    weights = np.random.default_rng(1).lognormal(0.0, 1.0, PLACES)
    if name == "target":
        weights[TARGET_PLACES:] = 0.0
    place = random.choice(PLACES, rows, p=weights / weights.sum())
    vectors = random.standard_normal((rows, dimension), dtype=np.float32)
    vectors *= 0.7
    if dense:
        together = random.random(rows) < 0.5
        place[together] = PLACES - 1
        vectors[together] *= 0.02
    vectors += places(dimension)[place]
    offsets = np.arange(0, vectors.size + 1, dimension, dtype=np.int32)
    return pa.table(
        {
            "id": [f"{name}-{number:05d}-{i:05d}" for i in range(rows)],
            "vector": pa.ListArray.from_arrays(pa.array(offsets), pa.array(vectors.reshape(-1))),
            "tokens": random.integers(20, 2_000, rows),
            "quality": random.random(rows),
            "source": pa.array(np.array(SOURCES)[random.integers(0, len(SOURCES), rows)]),
        }
    )


def write_file(
    path: Path, name: str, numbers: range, rows: int, size: int, dimension: int, **more
) -> None:
    """Write pieces of `size` rows as one file, whole or not at all, `grouped` to a row group."""
    grouped = more.pop("grouped", 1)
    part = path.with_suffix(".part")
    with pq.ParquetWriter(
        part, piece(name, 0, 1, dimension).schema, compression="none", use_dictionary=False
    ) as file:
        for start in range(numbers.start, numbers.stop, grouped):
            pieces = [
                piece(name, number, min(size, rows - number * size), dimension, **more)
                for number in range(start, min(start + grouped, numbers.stop))
            ]
            file.write_table(pa.concat_tables(pieces), row_group_size=grouped * size)
    part.rename(path)


def make_layout(folder: Path, layout: str, rows: int, dimension: int, new_share: float) -> Path:
    """Write pool files, new rows and target of a layout, unless they are there.

    Returns:
        Folder with `pool/*.parquet`, `new.parquet` and `target.parquet`.
    """
    root = folder / f"{rows}x{dimension}" / layout.replace(" ", "-")
    (root / "pool").mkdir(parents=True, exist_ok=True)
    size = piece_rows(rows)
    pieces = -(-rows // size)
    more: dict = {"dense": layout == "one cluster"}
    if layout in ("one file", "one group"):
        large = round(0.9 * pieces)
        # np.array_split of the rest: no file is empty.
        rest = [c for c in np.array_split(np.arange(large, pieces), SMALL_FILES) if len(c)]
        parts = [range(large), *(range(c[0], c[-1] + 1) for c in rest)]
        more["grouped"] = 32 if layout == "one group" else 1
    else:
        chunks = np.array_split(np.arange(pieces), min(FILES, pieces))
        parts = [range(c[0], c[-1] + 1) for c in chunks]
    jobs = [
        (root / "pool" / f"{n:03d}.parquet", "pool", p, rows, more) for n, p in enumerate(parts)
    ]
    new_rows = round(rows * new_share)
    others = (("new", new_rows, more), ("target", TARGET_ROWS, {}))
    for name, count, options in others:
        numbers = range(-(-count // size))
        jobs.append((root / f"{name}.parquet", name, numbers, count, {**options, "grouped": 1}))
    with ThreadPoolExecutor(2) as executor:
        written = [
            executor.submit(write_file, path, name, numbers, count, size, dimension, **options)
            for path, name, numbers, count, options in jobs
            if not path.exists()
        ]
        for one in written:
            one.result()
    return root
