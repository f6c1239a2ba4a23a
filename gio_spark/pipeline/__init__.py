"""The order of the stages: run, refresh, show, forecast."""

from gio_spark.pipeline.run import STAGES, Curation, curate, run

__all__ = ["STAGES", "Curation", "curate", "run"]
