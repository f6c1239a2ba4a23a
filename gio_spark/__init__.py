"""Choose the rows of a huge pool that are worth training on for a small target set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gio_spark.version import __version__

__all__ = ["Curation", "__version__", "curate", "read_selection"]

if TYPE_CHECKING:
    from gio_spark.pipeline import Curation, curate, read_selection


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that workers and `import gio_spark.gio` need no Spark and no plots.
    if name in ("Curation", "curate", "read_selection"):
        from gio_spark import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module 'gio_spark' has no attribute {name!r}")
