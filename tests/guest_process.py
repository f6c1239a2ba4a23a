"""Import the package, curate and evaluate as job.json says, and write what the process is like.

Started by test_good_guest.py in a process of its own.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import sys
import threading
import warnings
from pathlib import Path

# What the import of a third-party package changes is that package's doing, whoever imports it: all
# of them are there before the process is looked at.
IMPORTED = (
    "numpy", "scipy.linalg", "scipy.stats", "pandas", "pyarrow.dataset", "sklearn.isotonic",
    "sklearn.linear_model", "sklearn.ensemble", "sklearn.cluster", "matplotlib.figure",
    "mlflow.tracking", "mlflow.store.tracking.sqlalchemy_store", "pysail.spark", "deltalake",
    "pyspark.sql.connect.session", "pyspark.sql.functions", "data_selection", "jinja2", "PIL.Image",
)  # fmt: skip


def state() -> dict[str, object]:
    """What a library could change in the process of whoever imports it."""
    import threadpoolctl

    watched = [sys.modules[name] for name in ("data_selection.base", "warnings", "logging")]
    return {
        "threads": {lib["filepath"]: lib["num_threads"] for lib in threadpoolctl.threadpool_info()},
        "gc": [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()],
        "environment": dict(os.environ),
        "filters": [repr(one) for one in warnings.filters],
        "signals": {str(one): repr(signal.getsignal(one)) for one in signal.valid_signals()},
        "functions": {
            f"{module.__name__}.{name}": repr(value)
            for module in watched
            for name, value in vars(module).items()
            if callable(value)
        },
        "streams": [repr(sys.stdout), repr(sys.stderr)],
        "hooks": [repr(sys.excepthook), repr(threading.excepthook)],
        "folder": os.getcwd(),  # noqa: PTH109 - as it is, not resolved
    }


def main() -> None:
    """Look at the process before and after each step."""
    for name in IMPORTED:
        importlib.import_module(name)
    states = {"at first": state()}
    import gio_spark

    states["import"] = state()
    from gio_spark.evaluate import evaluate
    from gio_spark.settings.load import build

    job = json.loads(Path("job.json").read_text())
    gio_spark.curate(**job["curate"])
    states["curate"] = state()
    evaluation = evaluate(build(job["evaluate"]))
    assert (evaluation.trials["error"] == "").all(), evaluation.trials["error"].unique()
    states["evaluate"] = state()
    Path("states.json").write_text(json.dumps(states))


if __name__ == "__main__":
    main()
