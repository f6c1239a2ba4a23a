"""Score: apply the frozen plan of a run, or a registered model, to the rows of a table.

spark-submit jobs/run_score.py CONFIG TABLE --output TABLE [key=value ...]
spark-submit jobs/run_score.py models:/NAME/VERSION TABLE --output TABLE
"""

from __future__ import annotations

from gio_spark.cli.job import job

if __name__ == "__main__":
    job("score")
