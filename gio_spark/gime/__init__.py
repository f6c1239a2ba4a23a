"""Information metrics (GIME): eleven metrics as mergeable states, for any table and any grouping.

Source: Xu et al., arXiv 2501.02004.
"""

from __future__ import annotations

from gio_spark.gime.block_sample import BlockSample, in_blocks
from gio_spark.gime.driver_samples import labeled_sample, unlabeled_sample
from gio_spark.gime.metric_drift import compare_groups, drift, joint_verdict
from gio_spark.gime.metric_gate import (
    ClusterStats,
    ThresholdCheck,
    Verdict,
    cluster_bounds,
    judge,
    meet_thresholds,
    reallocate_quota,
    robust_values,
)
from gio_spark.gime.metric_profile import (
    METRICS,
    Accumulator,
    Constants,
    Metric,
    Profile,
    Value,
    check_profiles,
    get_profile,
)
from gio_spark.gime.metric_selection import (
    MeanLimit,
    MetricSelection,
    bounded_kl,
    limited_kl,
    select,
)
from gio_spark.gime.metric_state import State, merge
from gio_spark.gime.metric_thresholds import (
    Threshold,
    attainable_ranges,
    automatic_thresholds,
    efficiency_curve,
    excess_over_random,
    manual_thresholds,
    pursued_metrics,
    ranges_without_labels,
    rescaled_thresholds,
)
from gio_spark.gime.metrics_api import (
    freeze,
    merge_states,
    metrics,
    partitions_of,
    replace_partitions,
    states,
    target_states,
    values,
)
from gio_spark.gime.proxy_training import CustomScore, Task, train_many
from gio_spark.gime.quota_reallocation import QuotaLimits
from gio_spark.gime.row_batch import Column, Rows
from gio_spark.gime.sensitivity_analysis import Sensitivity, sensitivity
from gio_spark.gime.spatiotemporal_profile import SPATIOTEMPORAL
from gio_spark.gime.tabular_profile import TABULAR
from gio_spark.gime.text_profile import TEXT
from gio_spark.gime.tilted_subsets import Sample

__all__ = [
    "METRICS",
    "SPATIOTEMPORAL",
    "TABULAR",
    "TEXT",
    "Accumulator",
    "BlockSample",
    "ClusterStats",
    "Column",
    "Constants",
    "CustomScore",
    "MeanLimit",
    "Metric",
    "MetricSelection",
    "Profile",
    "QuotaLimits",
    "Rows",
    "Sample",
    "Sensitivity",
    "State",
    "Task",
    "Threshold",
    "ThresholdCheck",
    "Value",
    "Verdict",
    "attainable_ranges",
    "automatic_thresholds",
    "bounded_kl",
    "check_profiles",
    "cluster_bounds",
    "compare_groups",
    "drift",
    "efficiency_curve",
    "excess_over_random",
    "freeze",
    "get_profile",
    "in_blocks",
    "joint_verdict",
    "judge",
    "labeled_sample",
    "limited_kl",
    "manual_thresholds",
    "meet_thresholds",
    "merge",
    "merge_states",
    "metrics",
    "partitions_of",
    "pursued_metrics",
    "ranges_without_labels",
    "reallocate_quota",
    "replace_partitions",
    "rescaled_thresholds",
    "robust_values",
    "select",
    "sensitivity",
    "states",
    "target_states",
    "train_many",
    "unlabeled_sample",
    "values",
]
