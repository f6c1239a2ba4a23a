"""Bake-off: which selection method is best on a pool and target, and what each method costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gio_spark.strategy.evaluation_dataset import EvaluationDataset

if TYPE_CHECKING:
    from gio_spark.evaluate.compare_methods import Evaluation, compare, evaluate

__all__ = ["Evaluation", "EvaluationDataset", "compare", "evaluate"]


def __getattr__(name: str) -> Any:
    # Executors import this package for its methods and measures: they need neither pipeline,
    # plots nor tracking, which take seconds to import.
    if name in ("Evaluation", "compare", "evaluate"):
        from gio_spark.evaluate import compare_methods

        return getattr(compare_methods, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
