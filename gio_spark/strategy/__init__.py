"""Ways to select rows, and the choice among them on a bounded sample of pool and target.

Arrays in, row numbers and figures out: no Spark here.
"""

from gio_spark.strategy.evaluation_dataset import EvaluationDataset

__all__ = ["EvaluationDataset"]
