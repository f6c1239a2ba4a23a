"""Judge the selection by its thresholds; the exit code is 4 where it fails, so training can wait.

spark-submit jobs/run_gate.py CONFIG [key=value ...]
"""

from __future__ import annotations

from gio_spark.cli.job import job

if __name__ == "__main__":
    job("gate")
