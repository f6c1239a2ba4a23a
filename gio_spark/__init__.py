"""Choose the rows of a huge pool that are worth training on for a small target set."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gio_spark.errors import missing_spark
from gio_spark.registry import register
from gio_spark.version import __version__

if TYPE_CHECKING:
    from gio_spark.engine.session import session as session
    from gio_spark.pipeline import Curation, curate, read_selection
    from gio_spark.pipeline.commands.plan_refresh import plan_refresh as plan_refresh
    from gio_spark.pipeline.refresh import refresh as refresh
    from gio_spark.settings.run import RunSettings

__all__ = [
    "Curation",
    "RunSettings",
    "__version__",
    "curate",
    "plan_refresh",
    "read_selection",
    "refresh",
    "register",
    "session",
]

# Loaded on first use, so that workers and `import gio_spark.gio` need no Spark and no plots.
_HOMES = {
    "Curation": "gio_spark.pipeline",
    "RunSettings": "gio_spark.settings.run",
    "curate": "gio_spark.pipeline",
    "plan_refresh": "gio_spark.pipeline.commands.plan_refresh",
    "read_selection": "gio_spark.pipeline",
    "refresh": "gio_spark.pipeline.refresh",
    "session": "gio_spark.engine",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        try:
            return getattr(importlib.import_module(_HOMES[name]), name)
        except ModuleNotFoundError as error:
            raise missing_spark(error) or error from None
    raise AttributeError(f"module 'gio_spark' has no attribute {name!r}")
