"""From the plan over clusters to rows of the pool: hash share, exact count, density ratio."""

from gio_spark.explode.calibration import Calibration
from gio_spark.explode.exact_thresholds import Thresholds, thresholds_of_arrays
from gio_spark.explode.materialise import materialise
from gio_spark.explode.rank_keys import hash_keys, rank_keys, ratio_keys, share_thresholds
from gio_spark.explode.ratio import RatioFit, RatioModel, Sample, fit, fit_ratio, score
from gio_spark.explode.row_filter import kept, with_thresholds

__all__ = [
    "Calibration",
    "RatioFit",
    "RatioModel",
    "Sample",
    "Thresholds",
    "fit",
    "fit_ratio",
    "hash_keys",
    "kept",
    "materialise",
    "rank_keys",
    "ratio_keys",
    "score",
    "share_thresholds",
    "thresholds_of_arrays",
    "with_thresholds",
]
