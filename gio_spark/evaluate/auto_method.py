"""Method `auto`: the strategy that is best on target rows which it has not seen, then its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gio_spark.strategy.methods import MethodResult, get, method
from gio_spark.strategy.strategy_choice import choose_strategy

if TYPE_CHECKING:
    from gio_spark.strategy.evaluation_dataset import EvaluationDataset


@method("auto", needs=("target_vectors",), version=2)
def auto(dataset: EvaluationDataset, budget: int, seed: int) -> MethodResult:
    """Take the rows of the strategy that is best on a part of the target that it has not seen."""
    choice = choose_strategy(dataset, budget, seed)
    result = get(choice.strategy).function(dataset, budget, seed)
    rows, note = result if isinstance(result, MethodResult) else (result, "")
    return MethodResult(rows, f"{choice.note()} {note}".strip())
