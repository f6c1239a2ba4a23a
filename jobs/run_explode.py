"""Explode: from the plan to the selected rows, after the stages before it.

spark-submit jobs/run_explode.py CONFIG [key=value ...]
"""

from __future__ import annotations

from gio_spark.cli.job import job

if __name__ == "__main__":
    job("explode")
