"""The former name of `engine_errors`, which says the causes of engines' own errors as well."""

from gio_spark.engine.engine_errors import engine_errors as worker_errors

__all__ = ["worker_errors"]
