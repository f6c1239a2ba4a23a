"""Maintain: apply retention to a workspace, compact its tables, delete files that none refers to.

spark-submit jobs/run_maintain.py CONFIG [key=value ...]
"""

from __future__ import annotations

from gio_spark.cli.job import job

if __name__ == "__main__":
    job("maintain")
