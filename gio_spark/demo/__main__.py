"""`python -m gio_spark.demo`: run the demonstration."""

from __future__ import annotations

import argparse
import sys

from gio_spark.demo.demo_run import run
from gio_spark.engine.local_spark import silence_jvm
from gio_spark.errors import GioSparkError
from gio_spark.interruption import end_on_signals
from gio_spark.tracking import end_open_records


def main() -> int:
    """Read the command line, run the demo, return the exit code."""
    parser = argparse.ArgumentParser(description="Curate images and text that are on this machine.")
    parser.add_argument("--engine", default="auto", choices=["auto", "embedded", "spark"])
    parser.add_argument("--out", default="demo-output", help="folder for data and reports")
    arguments = parser.parse_args()
    try:
        with end_on_signals(_close):
            run(arguments.engine, arguments.out)
    except GioSparkError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _close() -> None:
    end_open_records()
    silence_jvm()


if __name__ == "__main__":
    sys.exit(main())
