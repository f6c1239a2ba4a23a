"""Content hashes: what is equal, what is not, and the published encoding."""

from __future__ import annotations

import datetime as dt
import hashlib
import struct
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gio_spark.engine.content_hash import content_hashes


def short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def hashes(*columns: pa.Array) -> list[str]:
    return content_hashes(columns).to_pylist()


@given(st.lists(st.text(max_size=20), max_size=8))
def test_a_text_hashes_as_its_utf8_bytes(texts):
    expected = [short(text.encode()) for text in texts]
    assert hashes(pa.array(texts, pa.string())) == expected
    assert hashes(pa.array(texts, pa.large_string())) == expected
    assert hashes(pa.array(["x", *texts], pa.string()).slice(1)) == expected


def test_the_encoding_of_several_columns_is_the_published_one():
    found = hashes(pa.array(["é", None]), pa.array([7, 8], pa.int16()), pa.array([None, 0.5]))
    first = b"s" + struct.pack("<q", 2) + "é".encode() + b"i" + struct.pack("<qq", 8, 7)
    first += b"n" + struct.pack("<q", 0)
    second = b"n" + struct.pack("<q", 0) + b"i" + struct.pack("<qq", 8, 8)
    second += b"f" + struct.pack("<qd", 8, 0.5)
    assert found == [short(first), short(second)]


def test_a_missing_text_differs_from_an_empty_one():
    missing, empty = hashes(pa.array([None, ""], pa.string()))
    assert missing != empty


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.array([5], pa.int8()), pa.array([5], pa.int64())),
        (pa.array([0.5], pa.float32()), pa.array([0.5], pa.float64())),
        (pa.array([0.0]), pa.array([-0.0])),
        (pa.array([[1.0, 2.0]], pa.list_(pa.float32())), pa.array([struct.pack("<ff", 1, 2)])),
        (pa.array([[1, 2]], pa.list_(pa.int8())), pa.array([[1, 2]], pa.large_list(pa.int64()))),
        (pa.array(["a"]).dictionary_encode(), pa.array(["a"])),
        (pa.array(["a"], pa.string_view()), pa.array(["a"])),
        (
            pa.array([dt.date(2020, 1, 2)]),
            pa.array([dt.datetime(2020, 1, 2)], pa.timestamp("ms")),
        ),
        (
            pa.array([dt.datetime(2020, 1, 2)], pa.timestamp("us", "UTC")),
            pa.array([dt.datetime(2020, 1, 2)], pa.timestamp("ns", "Europe/Rome")),
        ),
    ],
)
def test_the_same_value_has_one_hash_however_it_is_stored(one, other):
    key = pa.array(["k"])
    assert hashes(one, key) == hashes(other, key)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((pa.array(["ab"]), pa.array(["c"])), (pa.array(["a"]), pa.array(["bc"]))),
        ((pa.array(["1"]), pa.array(["k"])), (pa.array([1]), pa.array(["k"]))),
        ((pa.array([True]),), (pa.array([1]),)),
        ((pa.array([[1.0]]),), (pa.array([[1.0, 0.0]]),)),
        ((pa.array([None], pa.string()), pa.array(["a"])), (pa.array(["a"]), pa.array([None]))),
        ((pa.array([Decimal("1.0")]),), (pa.array([Decimal("1.00")]),)),
    ],
)
def test_different_rows_have_different_hashes(one, other):
    assert hashes(*one) != hashes(*other)


def test_every_nan_has_one_hash():
    patterns = np.array([0x7FF8000000000000, 0xFFF8000000000001], dtype=np.uint64)
    found = hashes(pa.array(patterns.view(np.float64)))
    assert found[0] == found[1]


def test_slices_and_chunks_change_nothing():
    columns = [
        pa.array(["a", None, "ccc", "d"]),
        pa.array([1, 2, None, 4]),
        pa.array([[1.0], None, [], [2.0, 3.0]]),
        pa.array([True, None, False, True]),
        pa.array([b"x", b"", None, b"yz"]),
    ]
    whole = hashes(*columns)
    assert hashes(*[column.slice(1, 2) for column in columns]) == whole[1:3]
    chunked = [pa.chunked_array([column[:1], column[1:]]) for column in columns]
    assert hashes(*chunked) == whole
    assert len(set(whole)) == 4


def test_no_rows_give_no_hashes():
    assert hashes(pa.array([], pa.string())) == []
    assert hashes(pa.array([], pa.string()), pa.array([], pa.int64())) == []


def test_types_without_an_encoding_are_refused_by_name():
    with pytest.raises(TypeError, match="struct"):
        hashes(pa.array([{"a": 1}]))
    with pytest.raises(TypeError, match="lists of string"):
        hashes(pa.array([["a"]]))
    with pytest.raises(ValueError, match="at least one column"):
        content_hashes([])
