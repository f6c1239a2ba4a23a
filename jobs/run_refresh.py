"""Refresh: bring a selection up to date with a pool that has changed, within its budget.

spark-submit jobs/run_refresh.py CONFIG [key=value ...]
"""

from __future__ import annotations

from gio_spark.cli.job import job

if __name__ == "__main__":
    job("refresh")
