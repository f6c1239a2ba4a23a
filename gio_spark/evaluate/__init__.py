"""The bake-off: which selection is best on this pool and target, and what each costs."""

from gio_spark.evaluate.arena import Arena
from gio_spark.evaluate.run import Evaluation, evaluate

__all__ = ["Arena", "Evaluation", "evaluate"]
