"""Import modules in a thread while something else is waited for."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

log = logging.getLogger(__name__)

# What a run imports, the most of it where it is used: seconds of work.
OF_A_RUN = (
    "gio_spark.pipeline.run",
    "sklearn.isotonic",
    "sklearn.linear_model",
    "gio_spark.report.render",
    "mlflow.tracking",
    "mlflow.store.tracking.sqlalchemy_store",
)


@contextmanager
def loading(modules: Sequence[str]) -> Iterator[None]:
    """Import modules while the block runs; all are there when it ends.

    A module that cannot be imported is left to whoever needs it, with the error that says why. The
    block should import little itself: two threads inside one package with circular imports may
    see half of it.

    Args:
        modules: Full names.
    """

    def work() -> None:
        for name in modules:
            try:
                import_module(name)
            except Exception:  # a broken optional package must not stop what does without it
                log.debug("cannot import %s ahead of time", name, exc_info=True)

    # Nothing of what is imported goes away again, so that to look for what can be freed is a
    # quarter of the work for nothing.
    collects = gc.isenabled()
    gc.disable()
    thread = threading.Thread(target=work, name="gio-spark-load", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        if collects:
            gc.enable()
