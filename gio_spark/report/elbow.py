"""The picture of the quantisation error over the number of clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

from gio_spark.report.draw import INK, SELECTION, Drawn, draw
from gio_spark.report.text import percent


def elbow(curve: Sequence[Mapping[str, float]], used: int | None = None) -> Drawn | None:
    """Draw the held-out quantisation error over the number of clusters, on a sample.

    Args:
        curve: records clusters, share (of the error of one cluster).
        used: clusters in use, marked where the sample reaches that far.
    """
    if len(curve) < 2:
        return None
    clusters = np.array([point["clusters"] for point in curve])
    share = np.array([point["share"] for point in curve])

    def paint(axes: Axes) -> None:
        axes.plot(clusters, share, "o-", color=SELECTION, linewidth=2, markersize=4)
        if used is not None and used <= clusters.max():
            axes.axvline(used, color=INK, linewidth=1, label="in use")
            axes.legend()
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_ylim(0, max(1.0, float(share.max())) * 1.05)
        axes.set_xlabel("clusters")
        axes.set_ylabel("quantisation error left, held-out rows")

    beyond = (
        f" The run uses {used:,}, more than the sample can judge."
        if used is not None and used > clusters.max()
        else ""
    )
    return draw(
        "clusters_error",
        "How much of the spread of held-out rows is left inside clusters, over the number of "
        f"clusters: {percent(float(share[-1]))} at {clusters[-1]:,.0f}. Where the line stops "
        f"falling, more clusters describe noise.{beyond}",
        paint,
    )
