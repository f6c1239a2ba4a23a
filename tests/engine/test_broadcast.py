import numpy as np
import pytest

from gio_spark.engine import broadcast_arrays, evict_oldest, map_arrow

pytestmark = pytest.mark.embedded


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_arrays_arrive_on_workers_inline_or_as_files(spark, size):
    arrays = {"a": np.arange(size, dtype=np.float32), "b": np.array([7])}
    shipped = broadcast_arrays(spark, arrays)
    assert bool(shipped.files) == (size > 1_000_000)

    def read(batches):
        loaded = shipped.load()
        for batch in batches:
            n = batch.num_rows
            yield {"last": np.full(n, loaded["a"][-1]), "b": np.full(n, loaded["b"][0])}

    row = map_arrow(spark.range(1), read, "last double, b bigint").first()
    assert (row["last"], row["b"]) == (size - 1, 7)


def test_nothing_is_pickled(spark):
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        broadcast_arrays(spark, {"a": np.array([{}], dtype=object)})


def test_arrays_that_were_released_can_be_shipped_again(spark):
    shipped = broadcast_arrays(spark, {"a": np.arange(3_000_000, dtype=np.float32)})
    assert shipped.load()["a"][7] == 7
    shipped.release()
    with pytest.raises(FileNotFoundError):
        shipped.load()
    again = broadcast_arrays(spark, {"a": np.arange(3_000_000, dtype=np.float32)})
    assert again.load()["a"][7] == 7


def test_a_process_keeps_a_few_large_arrays_or_many_small_ones():
    small = {str(i): 10 for i in range(20)}
    evict_oldest(small, lambda size: size)
    assert list(small) == [str(i) for i in range(4, 20)]
    large = {"old": 40 << 20, "older": 40 << 20, "newest": 100 << 20}
    evict_oldest(large, lambda size: size)
    assert list(large) == ["older", "newest"]
    huge = {"one": 1 << 30}
    evict_oldest(huge, lambda size: size)
    assert list(huge) == ["one"]
