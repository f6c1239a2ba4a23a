"""Columns of more text than 32-bit offsets reach."""

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.engine import output_schema
from gio_spark.engine.arrow import conform, joined, rebatch, take_rows

pytestmark = pytest.mark.faults


def huge(rows):
    """A text column of 720 MB a row, in one chunk a row, whose bytes are there once."""
    length = 720 << 20
    text = pa.py_buffer(np.zeros(length, np.uint8))  # pages that nobody wrote take no memory
    ends = pa.py_buffer(np.array([0, length], np.int32))
    one = pa.Array.from_buffers(pa.string(), 1, [None, ends, text])
    return pa.table({"at": list(range(rows)), "text": pa.chunked_array([one] * rows)})


def test_text_above_two_gigabytes_keeps_its_rows():
    table = huge(3)
    batches = table.to_batches()
    assert [b.num_rows for b in batches] == [1, 1, 1]
    for most in (64 << 20, 1 << 40):
        out = rebatch(iter(batches), 8192, most)
        assert [n for b in out for n in b["at"].to_pylist()] == [0, 1, 2]
    column = joined(table["text"])
    assert column.type == pa.large_string() and len(column) == 3
    assert column.nbytes > 3 * (720 << 20)
    # A map function may give it as it is; the declared type holds no more than 2 GiB.
    produced = {"text": column, "at": [0, 1, 2]}
    out = conform(produced, output_schema("at bigint, text string"))
    assert [n for b in out for n in b["at"].to_pylist()] == [0, 1, 2]
    del column, produced, out
    assert take_rows(table, pa.array([2]))["at"].to_pylist() == [2]
