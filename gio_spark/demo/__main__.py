"""`python -m gio_spark.demo`: run the demonstration."""

from __future__ import annotations

import argparse
import sys

from gio_spark.demo.demo_run import run
from gio_spark.errors import GioSparkError


def main() -> int:
    """Read the command line, run the demo, return the exit code."""
    parser = argparse.ArgumentParser(description="Curate images and text that are on this machine.")
    parser.add_argument("--engine", default="auto", choices=["auto", "embedded", "spark"])
    parser.add_argument("--out", default="demo-output", help="folder for data and reports")
    arguments = parser.parse_args()
    try:
        run(arguments.engine, arguments.out)
    except GioSparkError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
