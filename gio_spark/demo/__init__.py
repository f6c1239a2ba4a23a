"""A demonstration on real input that is on every machine with this package: images and text."""

from gio_spark.demo.data import build
from gio_spark.demo.run import run

__all__ = ["build", "run"]
