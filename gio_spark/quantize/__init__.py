"""K-means clusters of vectors: fit, assignment, statistics, deduplication and target mass."""

from gio_spark.kernels import nearest, nearest_two
from gio_spark.quantize.assign import assign
from gio_spark.quantize.cluster_count import MemoryForecast, auto_clusters, error_curve, forecast
from gio_spark.quantize.cluster_statistics import ClusterStats, cluster_stats
from gio_spark.quantize.decontaminate import HeldOut, decontaminate
from gio_spark.quantize.duplicates import exact_duplicates, semantic_duplicates
from gio_spark.quantize.kmeans import MiniBatchKMeans
from gio_spark.quantize.kmeans_model import FitSummary, MiniBatchKMeansModel
from gio_spark.quantize.kmeans_state import KMeansState
from gio_spark.quantize.target_masses import target_mass

__all__ = [
    "ClusterStats",
    "FitSummary",
    "HeldOut",
    "KMeansState",
    "MemoryForecast",
    "MiniBatchKMeans",
    "MiniBatchKMeansModel",
    "assign",
    "auto_clusters",
    "cluster_stats",
    "decontaminate",
    "error_curve",
    "exact_duplicates",
    "forecast",
    "nearest",
    "nearest_two",
    "semantic_duplicates",
    "target_mass",
]
