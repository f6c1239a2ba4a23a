"""The order of the stages: run, refresh, show, forecast; selections published under a name."""

from gio_spark.pipeline.publishing import read_selection
from gio_spark.pipeline.run import STAGES, Curation, curate, run

__all__ = ["STAGES", "Curation", "curate", "read_selection", "run"]
