"""GIME: eleven information metrics as mergeable states, for any table and any grouping."""

from __future__ import annotations

from gio_spark.gime.blocks import BlockSample, in_blocks
from gio_spark.gime.drift import beside, drift, one_gate
from gio_spark.gime.gate import Cells, Check, Verdict, cell_limits, judge, meet, move_quota, robust
from gio_spark.gime.labelled import labelled, unlabelled
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
from gio_spark.gime.profile import (
    METRICS,
    Accumulator,
    Constants,
    Metric,
    Profile,
    Value,
    check_profiles,
    get_profile,
    register,
)
from gio_spark.gime.quota_shift import Limits
from gio_spark.gime.rows import Column, Rows
from gio_spark.gime.select import MeanLimit, Selected, bounded_kl, limited_kl, select
from gio_spark.gime.sensitivity import Sensitivity, sensitivity
from gio_spark.gime.spatiotemporal import SPATIOTEMPORAL
from gio_spark.gime.state import State, merge
from gio_spark.gime.subsets import Sample
from gio_spark.gime.tabular import TABULAR
from gio_spark.gime.text import TEXT
from gio_spark.gime.thresholds import (
    Threshold,
    attainable,
    automatic,
    by_hand,
    efficiency,
    excess,
    pursued,
    reach,
    rescaled,
)
from gio_spark.gime.train import OwnScore, Task, train_many

__all__ = [
    "METRICS",
    "SPATIOTEMPORAL",
    "TABULAR",
    "TEXT",
    "Accumulator",
    "BlockSample",
    "Cells",
    "Check",
    "Column",
    "Constants",
    "Limits",
    "MeanLimit",
    "Metric",
    "OwnScore",
    "Profile",
    "Rows",
    "Sample",
    "Selected",
    "Sensitivity",
    "State",
    "Task",
    "Threshold",
    "Value",
    "Verdict",
    "attainable",
    "automatic",
    "beside",
    "bounded_kl",
    "by_hand",
    "cell_limits",
    "check_profiles",
    "drift",
    "efficiency",
    "excess",
    "freeze",
    "get_profile",
    "in_blocks",
    "judge",
    "labelled",
    "limited_kl",
    "meet",
    "merge",
    "merge_states",
    "metrics",
    "move_quota",
    "one_gate",
    "partitions_of",
    "pursued",
    "reach",
    "register",
    "replace_partitions",
    "rescaled",
    "robust",
    "select",
    "sensitivity",
    "states",
    "target_states",
    "train_many",
    "unlabelled",
    "values",
]
