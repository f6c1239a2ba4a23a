"""Rows for bench_quantize: one data set for all sizes, made in pieces, never whole in one process.

Rows are drawn one by one from the same law, and every file has a generator of its own, so the
first files of the folder are a sample of all of them: each size reads the files it needs and no
others, as a table of that size would.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PLACES = 4000
MOST_ROWS = 25_000


def file_rows(sizes: list[int]) -> int:
    """Return the rows of a file: the most that every size is a multiple of."""
    common = math.gcd(*sizes)
    return next(n for n in range(min(common, MOST_ROWS), 0, -1) if common % n == 0)


def make(folder: str, dimension: int, sizes: list[int], most: int, threads: int) -> None:
    """Write the files of the first `most` rows; those that are there stay as they are."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from gio_spark.engine import encode_vectors

    count = file_rows(sizes)
    places = np.random.default_rng(0).standard_normal((PLACES, dimension), dtype=np.float32)
    root = place(folder, dimension, count)
    root.mkdir(parents=True, exist_ok=True)

    def one(number: int) -> None:
        path = root / f"{number:05d}.parquet"
        if path.exists():
            return
        rng = np.random.default_rng([1, number])
        x = rng.standard_normal((count, dimension), dtype=np.float32)
        x += places[rng.integers(0, PLACES, count)]
        ids = [f"row-{i}" for i in range(number * count, (number + 1) * count)]
        table = pa.table({"id": ids, "vector": encode_vectors(x)})
        pq.write_table(table, path.with_suffix(".part"), compression="none")
        path.with_suffix(".part").rename(path)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(most // count)))


def place(folder: str, dimension: int, count: int) -> Path:
    """Return the folder of the files."""
    return Path(folder) / f"rows-{dimension}-{count}"


def files(folder: str, dimension: int, sizes: list[int], rows: int) -> list[str]:
    """Return the files of the first `rows` rows."""
    count = file_rows(sizes)
    root = place(folder, dimension, count)
    return [str(root / f"{number:05d}.parquet") for number in range(rows // count)]


def matrix(paths: list[str], rows: int | None = None):
    """Read the vectors of the first rows as one matrix, file by file."""
    import numpy as np
    import pyarrow.parquet as pq

    from gio_spark.engine import decode_vectors

    parts, have = [], 0
    for path in paths:
        parts.append(decode_vectors(pq.read_table(path, columns=["vector"])["vector"]))
        have += len(parts[-1])
        if rows is not None and have >= rows:
            break
    return np.concatenate(parts)[:rows]


def inertia(x, centroids, threads: int) -> float:
    """Return the inertia per row, exact."""
    import numpy as np

    from gio_spark.kernels import Codebook, nearest

    book = Codebook(centroids)
    book.half_norms  # noqa: B018 - made once, before the threads
    blocks = [x[start : start + 16_384] for start in range(0, len(x), 16_384)]
    with ThreadPoolExecutor(threads) as pool:
        sums = pool.map(lambda b: float(nearest(b, book)[1].astype(np.float64).sum()), blocks)
        return sum(sums) / len(x)
