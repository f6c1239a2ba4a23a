"""The command line: parse, call the pipeline, print, exit code."""

from gio_spark.cli.main import app, main

__all__ = ["app", "main"]
