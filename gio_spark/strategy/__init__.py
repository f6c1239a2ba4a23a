"""Ways to select rows, and the choice among them on a bounded sample of pool and target.

Arrays in, row numbers and figures out: no Spark here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gio_spark.strategy.evaluation_dataset import EvaluationDataset

if TYPE_CHECKING:
    from gio_spark.strategy.strategy_choice import StrategyChoice, choose_strategy

__all__ = ["EvaluationDataset", "StrategyChoice", "choose_strategy"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: the methods need scikit-learn, scipy and pyarrow.
    if name in ("StrategyChoice", "choose_strategy"):
        from gio_spark.strategy import strategy_choice

        return getattr(strategy_choice, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
