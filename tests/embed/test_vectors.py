"""Own vectors: every storage form, every reason."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.embed import embed_rows, make_embedder
from gio_spark.errors import InputError
from gio_spark.settings.columns import Columns
from gio_spark.settings.embed import EmbedSettings

COLUMNS = Columns(id="id", vector="v")
ROWS = [
    [3.0, 4.0],
    None,
    [],
    [1.0, float("nan")],
    [1.0, float("inf")],
    [1.0, 2.0, 3.0],
    [0.0, 0.0],
    [-6.0, 8.0],
]
REASONS = [
    None,
    "null content",
    "empty content",
    "NaN or infinite value",
    "NaN or infinite value",
    "wrong length: 3 instead of 2",
    None,
    None,
]


def as_bytes(rows: list[list[float] | None]) -> pa.Array:
    return pa.array([None if r is None else np.array(r, "<f4").tobytes() for r in rows])


FORMS = {
    "list<float>": pa.array(ROWS, pa.list_(pa.float32())),
    "list<double>": pa.array(ROWS, pa.list_(pa.float64())),
    "large_list<float>": pa.array(ROWS, pa.large_list(pa.float32())),
    "binary": as_bytes(ROWS),
    "large_binary": as_bytes(ROWS).cast(pa.large_binary()),
}


def table(array: pa.Array) -> pa.Table:
    return pa.table({"id": [str(i) for i in range(len(array))], "v": array})


def run(array: pa.Array, **settings: object) -> pa.Table:
    embedder = make_embedder(EmbedSettings(dimension=2, **settings), COLUMNS)
    return embed_rows(table(array), embedder)


@pytest.mark.parametrize("form", FORMS)
def test_each_storage_form_gives_the_same_vectors_and_reasons(form):
    out = run(FORMS[form])
    assert out["reason"].to_pylist() == REASONS
    assert out["vector"].null_count == 5
    assert np.frombuffer(out["vector"][0].as_py(), "<f4").tolist() == [3.0, 4.0]
    assert np.frombuffer(out["vector"][7].as_py(), "<f4").tolist() == [-6.0, 8.0]


def test_float32_lists_and_their_bytes_have_one_content_hash():
    one = run(FORMS["list<float>"])["content_hash"].to_pylist()
    other = run(FORMS["binary"])["content_hash"].to_pylist()
    assert one == other
    assert len(set(one)) == len(ROWS)


def test_a_slice_of_a_batch_is_read_from_its_own_offset():
    for array in FORMS.values():
        out = run(pa.concat_arrays([array, array]).slice(7, 3))
        assert out["reason"].to_pylist() == [None, None, "null content"]
        assert np.frombuffer(out["vector"][1].as_py(), "<f4").tolist() == [3.0, 4.0]


def test_zero_norm_is_a_reason_only_where_vectors_are_scaled():
    out = run(FORMS["list<float>"], normalize=True)
    assert out["reason"][6].as_py() == "zero norm"
    np.testing.assert_allclose(np.frombuffer(out["vector"][0].as_py(), "<f4"), [0.6, 0.8])


def test_a_double_beyond_float32_is_infinite_not_a_warning():
    out = run(pa.array([[1e300, 0.0], [1e-300, 1.0]], pa.list_(pa.float64())))
    assert out["reason"].to_pylist() == ["NaN or infinite value", None]


def test_a_null_inside_a_vector_is_not_a_number():
    out = run(pa.array([[1.0, None], [1.0, 2.0]], pa.list_(pa.float32())))
    assert out["reason"].to_pylist() == ["NaN or infinite value", None]


def test_bytes_that_are_no_whole_floats_are_said_so():
    out = run(pa.array([b"12345", b"12345678"]))
    assert out["reason"].to_pylist() == ["wrong length: bytes are not whole float32 values", None]


def test_norms_near_the_ends_of_float32_are_scaled_all_the_same():
    out = run(pa.array([[3e-38, 4e-38], [3e38, 1e38]], pa.list_(pa.float32())), normalize=True)
    norms = [np.linalg.norm(np.frombuffer(v.as_py(), "<f4")) for v in out["vector"]]
    np.testing.assert_allclose(norms, 1.0, rtol=1e-6)


def test_without_a_set_dimension_the_most_common_length_of_the_sample_is_it():
    embedder = make_embedder(EmbedSettings(), COLUMNS)
    assert embedder.needs_fit
    with pytest.raises(InputError, match="not been fitted"):
        _ = embedder.dimension
    state = embedder.fit(table(FORMS["binary"]))
    assert embedder.with_state(state).dimension == 2


def test_a_sample_without_vectors_is_refused_by_name():
    embedder = make_embedder(EmbedSettings(), COLUMNS)
    with pytest.raises(
        InputError,
        match=r"column 'v' has no vector in 2 sampled rows \(2 null, 0 empty, 0 of bytes",
    ):
        embedder.fit(table(pa.array([None, None], pa.binary())))


@pytest.mark.parametrize("array", [pa.array(["a"]), pa.array([["a"]]), pa.array([1.0])])
def test_a_column_that_holds_no_vectors_is_refused(array):
    with pytest.raises(InputError):
        run(array)


def test_an_empty_batch_gives_an_empty_table():
    for array in FORMS.values():
        assert run(array.slice(0, 0)).num_rows == 0
