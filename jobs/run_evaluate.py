"""Evaluate: compare selection methods on the run's own pool and target.

spark-submit jobs/run_evaluate.py CONFIG [key=value ...]
"""

from __future__ import annotations

from gio_spark.cli.job import job

if __name__ == "__main__":
    job("evaluate")
