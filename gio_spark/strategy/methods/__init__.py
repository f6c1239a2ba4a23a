"""Selection methods of a bake-off by name; the decorator `method` registers another one."""

# isort: off
# In the order in which tables list the methods.
from gio_spark.strategy.methods import baselines
from gio_spark.strategy.methods import distance_retrieval
from gio_spark.strategy.methods import sparse_regions
from gio_spark.strategy.methods import bm25
from gio_spark.strategy.methods import language_models
from gio_spark.strategy.methods import dsir
from gio_spark.strategy.methods import density_ratios
from gio_spark.strategy.methods import word_classifiers
from gio_spark.strategy.methods import clustered_sampling
from gio_spark.strategy.methods import herding
from gio_spark.strategy.methods import optimal_transport
from gio_spark.strategy.methods import facility_location
from gio_spark.strategy.methods import cluster_plans
from gio_spark.strategy.methods import information_metrics

# isort: on
from gio_spark.strategy.methods.method_registry import (
    Method,
    MethodResult,
    Selection,
    get,
    method,
    methods,
    registered_by_users,
    run_method,
)
from gio_spark.strategy.methods.shared_work import compute_once

__all__ = [
    "Method",
    "MethodResult",
    "Selection",
    "baselines",
    "bm25",
    "cluster_plans",
    "clustered_sampling",
    "compute_once",
    "density_ratios",
    "distance_retrieval",
    "dsir",
    "facility_location",
    "get",
    "herding",
    "information_metrics",
    "language_models",
    "method",
    "methods",
    "optimal_transport",
    "registered_by_users",
    "run_method",
    "sparse_regions",
    "word_classifiers",
]
