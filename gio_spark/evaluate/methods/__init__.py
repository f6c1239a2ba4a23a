"""Every selection method of a bake-off, by name; `method` registers another."""

from gio_spark.evaluate.methods import (
    bm25,
    language_models,
    nearest,
    plans,
    ratios,
    simple,
)
from gio_spark.evaluate.methods.base import Chosen, Method, Selection, choose, get, method, methods
from gio_spark.evaluate.methods.shared import shared

__all__ = [
    "Chosen",
    "Method",
    "Selection",
    "bm25",
    "choose",
    "get",
    "language_models",
    "method",
    "methods",
    "nearest",
    "plans",
    "ratios",
    "shared",
    "simple",
]
