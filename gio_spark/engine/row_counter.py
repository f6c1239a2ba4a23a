"""Rows that map functions have given so far, where they run in this process (embedded engine)."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_label: ContextVar[str] = ContextVar("gio_spark_row_counter", default="")
_lock = threading.Lock()
_counts: dict[str, int] = {}


@contextmanager
def counted_rows() -> Iterator[str]:
    """Count the rows of maps that are built in a block, under the label that it gives."""
    label = uuid.uuid4().hex
    token = _label.set(label)
    _counts[label] = 0
    try:
        yield label
    finally:
        _label.reset(token)
        del _counts[label]


def current_label() -> str:
    """Label under which rows of a map built now are counted; "" for none."""
    return _label.get()


def count_rows(label: str, rows: int) -> None:
    """Add rows; in another process than the one that reads them, nothing is counted."""
    with _lock:
        if label in _counts:
            _counts[label] += rows


def rows_so_far(label: str) -> int:
    """Rows counted under a label; those of a task that ran twice count twice."""
    return _counts.get(label, 0)
