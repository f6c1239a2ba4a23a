"""Every selection method of a bake-off, by name; `method` registers another."""

# isort: off
# In the order in which tables list the methods.
from gio_spark.evaluate.methods import simple
from gio_spark.evaluate.methods import nearest
from gio_spark.evaluate.methods import bm25
from gio_spark.evaluate.methods import language_models
from gio_spark.evaluate.methods import dsir
from gio_spark.evaluate.methods import ratios
from gio_spark.evaluate.methods import herding
from gio_spark.evaluate.methods import transport
from gio_spark.evaluate.methods import facility
from gio_spark.evaluate.methods import plans
from gio_spark.evaluate.methods import information

# isort: on
from gio_spark.evaluate.methods.base import Chosen, Method, Selection, choose, get, method, methods
from gio_spark.evaluate.methods.shared import shared

__all__ = [
    "Chosen",
    "Method",
    "Selection",
    "bm25",
    "choose",
    "dsir",
    "facility",
    "get",
    "herding",
    "information",
    "language_models",
    "method",
    "methods",
    "nearest",
    "plans",
    "ratios",
    "shared",
    "simple",
    "transport",
]
