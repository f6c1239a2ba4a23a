import numpy as np
import pytest

from gio_spark.engine import map_arrow, ship

pytestmark = pytest.mark.embedded


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_arrays_arrive_on_workers_inline_or_as_files(spark, size):
    arrays = {"a": np.arange(size, dtype=np.float32), "b": np.array([7])}
    shipped = ship(spark, arrays)
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
        ship(spark, {"a": np.array([{}], dtype=object)})
