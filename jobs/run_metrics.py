"""Measure pool, selection and random rows, after the stages before it.

spark-submit jobs/run_metrics.py CONFIG [key=value ...]
"""

from __future__ import annotations

from gio_spark.cli.job import job

if __name__ == "__main__":
    job("metrics")
