"""Selection objectives on K clusters, with their optima, certificates, estimators and checks.

numpy and scipy only. Everything here runs on the driver, on arrays of K clusters.
"""

from gio_spark.gio.auto_budget import HeldoutCurve, MixtureShare, heldout_curve, mixture_share
from gio_spark.gio.budgeted_kl import BudgetedKL, budgeted_kl, integer_plan
from gio_spark.gio.budgeted_kl_objective import select_budgeted_kl
from gio_spark.gio.divergence_estimators import (
    energy_distance,
    jsd_histogram,
)
from gio_spark.gio.greedy_energy import energy_greedy
from gio_spark.gio.greedy_knn import GreedyPath, knn_greedy
from gio_spark.gio.held_budget import hold_budget
from gio_spark.gio.point_objectives import select_published, select_published_exact
from gio_spark.gio.published_algorithm import (
    PublishedPath,
    PublishedRun,
    published_gio,
    published_run,
)
from gio_spark.gio.published_exact import ExactPath, exact_path, published_scores
from gio_spark.gio.published_options import Draws, PublishedOptions, SeededDraws
from gio_spark.gio.reallocation import reallocation_bounds, with_allocation
from gio_spark.gio.row_repetition import Repetition
from gio_spark.gio.selection_problem import (
    Certificate,
    Notice,
    SelectionProblem,
    SelectionResult,
    objectives,
    select,
)
from gio_spark.gio.smoothed_divergence import divergence_path, divergences, smoothed_kl
from gio_spark.gio.target_mass import (
    TargetMass,
    cluster_radii,
    kernel_mass,
    kernel_width,
    mix_targets,
    nearest_clusters,
    reach_limit,
    relative_reach,
)
from gio_spark.gio.whole_pool import select_whole_pool

__all__ = [
    "BudgetedKL",
    "Certificate",
    "Draws",
    "ExactPath",
    "GreedyPath",
    "HeldoutCurve",
    "MixtureShare",
    "Notice",
    "PublishedOptions",
    "PublishedPath",
    "PublishedRun",
    "Repetition",
    "SeededDraws",
    "SelectionProblem",
    "SelectionResult",
    "TargetMass",
    "budgeted_kl",
    "cluster_radii",
    "divergence_path",
    "divergences",
    "energy_distance",
    "energy_greedy",
    "exact_path",
    "heldout_curve",
    "hold_budget",
    "integer_plan",
    "jsd_histogram",
    "kernel_mass",
    "kernel_width",
    "knn_greedy",
    "mix_targets",
    "mixture_share",
    "nearest_clusters",
    "objectives",
    "published_gio",
    "published_run",
    "published_scores",
    "reach_limit",
    "reallocation_bounds",
    "relative_reach",
    "select",
    "select_budgeted_kl",
    "select_published",
    "select_published_exact",
    "select_whole_pool",
    "smoothed_kl",
    "with_allocation",
]
