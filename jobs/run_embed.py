"""Embed pool and target: rows become vectors.

spark-submit jobs/run_embed.py CONFIG [key=value ...]
"""

from __future__ import annotations

from gio_spark.cli.job import job

if __name__ == "__main__":
    job("embed")
