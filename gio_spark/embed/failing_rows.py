"""Rows at which an embedder raises an error: they alone go to quarantine."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from gio_spark.embed.embedder import Embedder, Result, check_vectors, no_reasons
from gio_spark.errors import GioSparkError, InputError

# Errors that the content of a row causes. Others (network, memory, a missing module) stop the run.
_ROW_ERRORS = (ValueError, TypeError, ArithmeticError, LookupError)
# So many first rows of a batch that all raise show that the embedder fails, and not a row.
_FIRST_ROWS = 64


def embed_usable(embedder: Embedder, rows: pa.Table) -> Result:
    """Embed a batch; rows at which the embedder raises have the error's class as their reason.

    A batch that raises is embedded again in halves, down to single rows.

    Args:
        embedder: With its state.
        rows: Table with n rows.

    Returns:
        Vectors (n, dimension), float32, and reasons (n,), str or None.

    Raises:
        InputError: The embedder's result has another shape.
        Exception: The embedder's own, where no row causes it or the first 64 rows all raise.
    """
    pending, parts, failures = [rows], list[Result | str](), 0
    while pending:
        part = pending.pop()
        try:
            parts.append(_checked_result(embedder, part))
        except GioSparkError:
            raise
        except _ROW_ERRORS as error:
            if part.num_rows > 1:
                middle = part.num_rows // 2
                pending += [part.slice(middle), part.slice(0, middle)]
                continue
            failures += 1
            if failures == len(parts) + 1 == _FIRST_ROWS:
                raise
            parts.append(f"the embedder raised {type(error).__name__}")
    if len(parts) == 1 and not isinstance(parts[0], str):
        return parts[0]
    return _joined(embedder, parts)


def _joined(embedder: Embedder, parts: list[Result | str]) -> Result:
    widths = [part[0].shape[1] for part in parts if not isinstance(part, str)]
    nothing = np.zeros((1, widths[0] if widths else embedder.dimension), np.float32)
    results = [
        (nothing, np.array([part], dtype=object)) if isinstance(part, str) else part
        for part in parts
    ]
    vectors, reasons = zip(*results, strict=True)
    return np.concatenate(vectors), np.concatenate(reasons)


def _checked_result(embedder: Embedder, rows: pa.Table) -> Result:
    """Result of an embedder, with a reason for each vector that is not finite."""
    vectors, reasons = embedder.embed(rows)
    vectors = np.ascontiguousarray(vectors, np.float32)
    width = embedder.dimension if embedder.knows_dimension else vectors.shape[-1]
    if vectors.shape != (rows.num_rows, width) or len(reasons) != rows.num_rows:
        raise InputError(
            f"Embedder {embedder.name!r} gave vectors of shape {vectors.shape} and {len(reasons)} "
            f"reasons for {rows.num_rows} rows; ({rows.num_rows}, {width}) and as many reasons are "
            "needed."
        )
    whole = no_reasons(rows.num_rows)
    whole[:] = reasons
    return check_vectors(vectors, whole, normalize=False)
