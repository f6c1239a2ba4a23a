"""Pipeline: run, refresh, forecast, and publication of selections."""

from gio_spark.pipeline.run import STAGES, Curation, curate, run
from gio_spark.pipeline.stages.publish_selection import read_selection

__all__ = ["STAGES", "Curation", "curate", "read_selection", "run"]
