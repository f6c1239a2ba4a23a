"""Choose the rows of a huge pool that are worth training on for a small target set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Curation", "curate"]

if TYPE_CHECKING:
    from gio_spark.pipeline import Curation, curate


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that workers and `import gio_spark.gio` need no Spark and no plots.
    if name in __all__:
        from gio_spark import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module 'gio_spark' has no attribute {name!r}")
