"""Row selection: the pool rows that fill a plan's allocation of rows per cluster.

The rule inside a cluster is a hash share, an exact count or the density ratio.
"""

from gio_spark.explode.calibration import Calibration
from gio_spark.explode.density_ratio import RatioFit, RatioModel, RatioSample, fit, fit_ratio, score
from gio_spark.explode.exact_thresholds import Thresholds, thresholds_of_arrays
from gio_spark.explode.fetch_rows import materialize
from gio_spark.explode.rank_keys import hash_keys, rank_keys, ratio_keys, share_thresholds
from gio_spark.explode.ratio_fit import vector_fit_bytes
from gio_spark.explode.row_filter import row_keys, selected_ids, with_thresholds
from gio_spark.explode.whole_pool import WholePoolRanks, rank_whole_pool

__all__ = [
    "Calibration",
    "RatioFit",
    "RatioModel",
    "RatioSample",
    "Thresholds",
    "WholePoolRanks",
    "fit",
    "fit_ratio",
    "hash_keys",
    "materialize",
    "rank_keys",
    "rank_whole_pool",
    "ratio_keys",
    "row_keys",
    "score",
    "selected_ids",
    "share_thresholds",
    "thresholds_of_arrays",
    "vector_fit_bytes",
    "with_thresholds",
]
