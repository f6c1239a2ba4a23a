"""Code of a registered model: MLflow copies this file and executes it where the model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow.models
import pandas as pd
from mlflow.pyfunc import PythonModel

from gio_spark.pipeline.stages.frozen_plan import FrozenPlan


class PlanModel(PythonModel):  # type: ignore[misc]
    """Plan of a run, which says of each row of a frame whether it is taken."""

    def load_context(self, context: Any) -> None:
        """Load the files of the plan."""
        self._plan = FrozenPlan.load(Path(context.artifacts["plan"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Cluster, score, threshold and decision of each row; see docs/explain.md."""
        del context, params
        return self._plan.score_frame(model_input)


mlflow.models.set_model(PlanModel())
