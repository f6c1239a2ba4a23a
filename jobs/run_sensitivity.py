"""Learn which metrics models follow, and the thresholds to hold, on a labelled sample.

spark-submit jobs/run_sensitivity.py CONFIG [key=value ...]
"""

from __future__ import annotations

from gio_spark.cli.job import job

if __name__ == "__main__":
    job("sensitivity")
