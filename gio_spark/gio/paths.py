"""The divergence path of a plan in whole rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def smoothed_path(
    law: NDArray, take: NDArray, cost: NDArray | None = None
) -> tuple[NDArray, NDArray]:
    """Return the clusters taken, in order of their part in the divergence, and its path.

    The divergence is KL(p || t (r + 1/2) / sum t (r + 1/2)) over the clusters with p > 0, t the
    cost of a row: finite for whole rows, and the objective of the integer plan. Clusters enter
    by what they take off it; the path starts after the first and ends at the plan's own value.
    """
    used = law > 0
    price = np.ones(len(law)) if cost is None else cost
    total = float(np.sum(price[used] * (take[used] + 0.5)))
    gain = np.where(used, law * np.log1p(2.0 * take), 0.0)
    order = np.flatnonzero(take > 0)
    order = order[np.argsort(-gain[order], kind="stable")]
    start = float(np.sum(law[used] * np.log(law[used] * total / (0.5 * price[used]))))
    return order, start - np.cumsum(gain[order])
