"""Time picks of the published code; runs in the environment that has grad-info-opt.

    REF/bin/python benchmarks/reference_gio.py INPUT.npz OUTPUT.json PICKS

Started by bench_gio.py. A pick's time is the time between two of the lines that the code prints
after each pick; the first pick descends three times as long and is reported apart.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("JAX_PLATFORMS", "cpu")


class Clock(io.TextIOBase):
    """A stdout that notes when each pick is reported."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.picks: list[float] = []

    def write(self, text: str) -> int:
        """Note the time of a line that matters."""
        if text.startswith("Starting KL"):
            self.times.append(time.perf_counter())
        if text.startswith("KL Divergence at iteration"):
            self.times.append(time.perf_counter())
            self.picks.append(float(text.split(":")[1]))
        return len(text)


def main(source: str, out: str, picks: int) -> None:
    """Run `picks` picks from the given start and write their times."""
    import jax.numpy as jnp
    from GIO.GIOKL import GIOKL

    with np.load(source, allow_pickle=False) as file:
        target, pool, held = file["target"], file["pool"], file["held"]
    model = GIOKL.__new__(GIOKL)  # its constructor starts a Spark session that fit never uses
    clock, stdout = Clock(), sys.stdout
    sys.stdout = clock
    try:
        w, path, _ = model.fit(
            jnp.array(pool), jnp.array(target), jnp.array(held), max_iter=picks - 1,
            v_init="prev_opt", stop_criterion="min_kl", min_kl=-1e9,
        )  # fmt: skip
    finally:
        sys.stdout = stdout
    chosen = np.asarray(w)[len(held) :]
    order = [int(np.argmin(np.abs(pool - row).sum(axis=1))) for row in chosen]
    gaps = np.diff(clock.times)[: len(path)]
    report = {
        "first": float(gaps[0]),
        "picks": [float(gap) for gap in gaps[1:]],
        "order": order,
        "divergence": [float(value) for value in path],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    Path(out).write_text(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
