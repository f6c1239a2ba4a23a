"""State of the process: changed by the first block inside, restored by the last one that leaves."""

from __future__ import annotations

import os
import threading
import warnings

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from gio_spark.process import environment, no_warnings, one_blas_thread, one_thread


@pytest.fixture
def blas():
    """The number of threads of every BLAS; restored after the test."""
    np.ones((2, 2)) @ np.ones((2, 2))
    controller = ThreadpoolController().select(user_api="blas")
    assert controller.lib_controllers

    def threads():
        return {library.num_threads for library in controller.lib_controllers}

    with controller.limit(limits=2):
        yield threads


def test_blas_has_one_thread_inside_and_as_many_as_before_afterwards(blas):
    assert blas() == {2}
    with one_blas_thread(), one_thread():
        assert blas() == {1}
    assert blas() == {2}


def test_blocks_that_overlap_in_any_order_restore_what_the_first_one_saw(blas):
    first, second = one_blas_thread(), one_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert blas() == {1}
    second.__exit__(None, None, None)
    assert blas() == {2}


def test_blocks_in_many_threads_restore_it_too(blas):
    seen = []

    def work():
        for _ in range(50):
            with one_blas_thread():
                seen.append(blas())

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert set().union(*seen) == {1}
    assert blas() == {2}


def test_an_error_and_a_generator_that_is_not_used_up_restore_it(blas):
    with pytest.raises(ValueError, match="no"), one_blas_thread():
        raise ValueError("no")
    assert blas() == {2}

    def rows():
        with one_blas_thread():
            yield 1
            yield 2

    some = rows()
    next(some)
    assert blas() == {1}
    del some
    assert blas() == {2}


def test_variables_are_there_inside_and_those_of_the_user_come_first(monkeypatch):
    monkeypatch.setenv("GIO_TEST_USER", "user")
    monkeypatch.delenv("GIO_TEST_OURS", raising=False)
    first, second = (
        environment(GIO_TEST_USER="x", GIO_TEST_OURS="1"),
        environment(GIO_TEST_OURS="2"),
    )
    first.__enter__()
    second.__enter__()
    assert (os.environ["GIO_TEST_USER"], os.environ["GIO_TEST_OURS"]) == ("user", "1")
    first.__exit__(None, None, None)
    assert os.environ["GIO_TEST_OURS"] == "1"
    second.__exit__(None, None, None)
    assert "GIO_TEST_OURS" not in os.environ
    assert os.environ["GIO_TEST_USER"] == "user"


def test_filters_of_warnings_are_those_of_before_however_blocks_overlap():
    before = list(warnings.filters)
    first, second = no_warnings(), no_warnings()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    warnings.warn("not an error here", stacklevel=1)
    second.__exit__(None, None, None)
    assert warnings.filters == before
