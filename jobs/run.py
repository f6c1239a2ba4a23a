"""Curate: all stages, from pool and target to the selected rows and the report.

spark-submit jobs/run.py CONFIG [key=value ...]
"""

from __future__ import annotations

from gio_spark.cli.job import job

if __name__ == "__main__":
    job("run")
