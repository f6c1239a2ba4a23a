import pytest

from gio_spark.engine import bounded, map_arrow
from gio_spark.engine.told import worker_errors
from gio_spark.errors import EngineError, InputError

TRACEBACK = """An exception was thrown from the Python worker. Please see the stack trace below.
Traceback (most recent call last):
  File "lines.py", line 93, in keys
OSError: zlib inflate failed

The above exception was the direct cause of the following exception:

  File "lines.py", line 99, in keys
gio_spark.errors.{name}: Cannot read it: broken.
 Mend it.

\tat org.apache.spark.api.python.BasePythonRunner.handle(PythonRunner.scala:1)
"""


@pytest.mark.parametrize(
    ("name", "kind"), [("InputError", InputError), ("MissingExtraError", EngineError)]
)
def test_an_error_of_a_worker_is_raised_as_what_it_is_without_its_traceback(name, kind):
    with pytest.raises(kind) as told, worker_errors():
        raise RuntimeError(TRACEBACK.replace("{name}", name))
    assert str(told.value) == "Cannot read it: broken. Mend it."


@pytest.mark.parametrize("text", ["gio_spark.errors.NoSuch: x", "ValueError: x"])
def test_other_errors_are_left_as_they_are(text):
    with pytest.raises(RuntimeError, match="x"), worker_errors():
        raise RuntimeError(text)


@pytest.mark.embedded
def test_rows_that_a_map_refuses_are_told_in_one_line(spark):
    def refuse(batches):
        for _ in batches:
            raise InputError("no such rows here")
        yield {"id": []}

    with pytest.raises(InputError, match=r"\Ano such rows here\Z"):
        bounded(map_arrow(spark.range(3), refuse, "id bigint"), 10, "rows")
