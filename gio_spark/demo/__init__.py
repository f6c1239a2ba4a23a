"""Demonstration on images and texts that are installed with the dependencies of this package."""

from gio_spark.demo.demo_files import build
from gio_spark.demo.demo_run import run

__all__ = ["build", "run"]
