"""The order of the stages: run, refresh, show, forecast; selections published under a name."""

from gio_spark.pipeline.run import STAGES, Curation, curate, run
from gio_spark.pipeline.stages.publish_selection import read_selection

__all__ = ["STAGES", "Curation", "curate", "read_selection", "run"]
