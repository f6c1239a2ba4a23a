"""Plot of the quantization error by number of clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

from gio_spark.report.plot_rendering import INK, SELECTION, Plot, render_plot
from gio_spark.report.text_format import percent_text


def error_curve_plot(
    curve: Sequence[Mapping[str, float]], clusters_in_use: int | None = None
) -> Plot | None:
    """Plot of the held-out quantization error of a sample by number of clusters.

    Args:
        curve: Records of clusters and share (of the error of a single cluster).
        clusters_in_use: Number of clusters in use, marked if the curve reaches it.
    """
    if len(curve) < 2:
        return None
    clusters = np.array([point["clusters"] for point in curve])
    share = np.array([point["share"] for point in curve])

    def paint(axes: Axes) -> None:
        axes.plot(clusters, share, "o-", color=SELECTION, linewidth=2, markersize=4)
        if clusters_in_use is not None and clusters_in_use <= clusters.max():
            axes.axvline(clusters_in_use, color=INK, linewidth=1, label="in use")
            axes.legend()
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_ylim(0, max(1.0, float(share.max())) * 1.05)
        axes.set_xlabel("clusters")
        axes.set_ylabel("quantisation error left, held-out rows")

    beyond = (
        f" The run uses {clusters_in_use:,}, more than the sample can judge."
        if clusters_in_use is not None and clusters_in_use > clusters.max()
        else ""
    )
    return render_plot(
        "clusters_error",
        "How much of the spread of held-out rows is left inside clusters, over the number of "
        f"clusters: {percent_text(float(share[-1]))} at {clusters[-1]:,.0f}. Where the line stops "
        f"falling, more clusters describe noise.{beyond}",
        paint,
    )
