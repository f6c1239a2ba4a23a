"""Purge: make rows unreadable for good in every table, version, model and page of a workspace.

spark-submit jobs/run_purge.py CONFIG --deleted-upstream --yes [key=value ...]
"""

from __future__ import annotations

from gio_spark.cli.job import job

if __name__ == "__main__":
    job("purge")
