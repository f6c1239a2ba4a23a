"""Quantise: fit the clusters and assign every row, after embedding where needed.

spark-submit jobs/run_quantize.py CONFIG [key=value ...]
"""

from __future__ import annotations

from gio_spark.cli.job import job

if __name__ == "__main__":
    job("quantize")
