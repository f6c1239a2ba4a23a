import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gio_spark.engine import decode_vectors, encode_vectors, map_arrow, output_schema
from gio_spark.engine.arrow import conform, rebatch
from gio_spark.errors import InputError


def test_vectors_survive_encoding_and_slicing():
    matrix = np.arange(40, dtype=np.float32).reshape(10, 4)
    encoded = encode_vectors(matrix)
    assert np.array_equal(decode_vectors(encoded, 4), matrix)
    assert np.array_equal(decode_vectors(encoded.slice(3, 4)), matrix[3:7])
    assert decode_vectors(encoded.slice(0, 0), 4).shape == (0, 4)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float32(), 4)]
)
def test_lists_of_numbers_are_decoded(kind):
    matrix = np.arange(40, dtype=np.float32).reshape(10, 4)
    array = pa.array(matrix.tolist(), kind)
    assert np.array_equal(decode_vectors(array.slice(2, 5), 4), matrix[2:7])


def test_chunks_are_decoded_as_one():
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    chunks = pa.chunked_array([encode_vectors(matrix[:1]), encode_vectors(matrix[1:])])
    assert np.array_equal(decode_vectors(chunks), matrix)


def test_ragged_and_null_vectors_are_refused():
    with pytest.raises(InputError, match="1 to 2 numbers where 2"):
        decode_vectors(pa.array([[1.0, 2.0], [1.0]], pa.list_(pa.float32())), 2)
    with pytest.raises(InputError, match=r"column 'vector': 1 of 2 vectors are null"):
        decode_vectors(pa.array([[1.0], None], pa.list_(pa.float32())))
    with pytest.raises(InputError, match="3 numbers where 4"):
        decode_vectors(encode_vectors(np.ones((2, 3), np.float32)), 4)


@pytest.mark.parametrize("sizes", [[3, 3, 3], [1] * 9, [9], [20, 1]])
def test_batches_are_cut_to_one_size_whatever_comes_in(sizes):
    batches = [pa.RecordBatch.from_pydict({"x": list(range(n))}) for n in sizes]
    out = [b.num_rows for b in rebatch(iter(batches), 4)]
    assert sum(out) == sum(sizes)
    assert all(n == 4 for n in out[:-1])
    assert 1 <= out[-1] <= 4


KINDS = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]


@st.composite
def cut_batches(draw):
    """Batches of one schema, some empty, each cut from the middle of a longer one."""
    kind = draw(st.sampled_from(KINDS))
    schema = pa.schema([("at", pa.int64()), ("text", kind), ("list", pa.list_(pa.int8()))])
    batches, at = [], 0
    for lengths in draw(st.lists(st.lists(st.integers(0, 300), max_size=12), max_size=6)):
        before, after = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        whole = [999] * before + lengths + [999] * after
        texts = [None if n == 7 else f"{n}" * (n // 3) for n in whole]
        columns = [
            pa.array([at + i - before for i in range(len(whole))], pa.int64()),
            pa.array(texts, pa.string()).cast(kind) if kind in KINDS[:2] else pa.array(texts, kind),
            pa.array([[1] * (n % 5) for n in whole], pa.list_(pa.int8())),
        ]
        batch = pa.RecordBatch.from_arrays(columns, schema=schema)
        batches.append(batch.slice(before, len(lengths)))
        at += len(lengths)
    return batches


def flat_bytes(batch):
    """Return the bytes of a batch's rows, copied out of whatever they were cut from."""
    return sum(c.cast(pa.string()).nbytes if c.type in KINDS else c.nbytes for c in batch.columns)


@given(batches=cut_batches(), rows=st.integers(1, 9), most=st.integers(1, 2000))
@settings(max_examples=150, deadline=None)
def test_no_row_is_lost_or_moved_and_no_batch_of_several_rows_is_above_either_bound(
    batches, rows, most
):
    out = list(rebatch(iter(batches), rows, most))
    told = [row for batch in batches for row in batch.to_pylist()]
    assert [row for batch in out for row in batch.to_pylist()] == told
    assert all(1 <= batch.num_rows <= rows for batch in out)
    for batch in out:
        if not pa.types.is_dictionary(batch.schema.field("text").type):
            assert batch.num_rows == 1 or flat_bytes(batch) <= most + 16 * batch.num_rows
    # As few as the bounds allow: two neighbours never fit one batch.
    assert len(out) <= 2 * (sum(map(flat_bytes, out)) // most + len(told) // rows + 1) + 1


def test_columns_are_matched_by_name_and_cast():
    schema = output_schema("id string, n bigint, v array<float>")
    produced = {"v": [[1.0]], "n": np.array([3], np.int32), "id": ["a"]}
    batch = next(conform(produced, schema))
    assert batch.schema == schema
    with pytest.raises(InputError, match=r"lacks \['v'\]"):
        next(conform({"id": ["a"], "n": [1]}, schema))


def test_unknown_types_in_a_schema_are_named():
    with pytest.raises(InputError, match="'x decimal'"):
        output_schema("id string, x decimal")


@pytest.mark.embedded
def test_map_arrow_gives_declared_columns(spark):
    def double(batches):
        for batch in batches:
            yield {"y": batch["id"].to_numpy() * 2, "id": batch["id"]}

    out = map_arrow(spark.range(10), double, "id bigint, y bigint").toArrow()
    assert out.column_names == ["id", "y"]
    assert sorted(out["y"].to_pylist()) == list(range(0, 20, 2))
