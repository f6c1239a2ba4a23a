"""Record runs of the published code (grad-info-opt 0.1.2) for the parity tests.

Runs inside an environment that has grad-info-opt:

    python -m venv REF && REF/bin/pip install grad-info-opt==0.1.2
    REF/bin/python benchmarks/record_reference_cases.py tests/gio/cases [case,case...]

Each case is one .npz (plain arrays, no pickle) with its inputs, the picks as indices into the
pool and the divergences, recorded twice: in float64, where rounding decides nothing, and in the
code's own float32. `cases.json` holds the options. The stop criterion "min_kl" with a bound far
below zero keeps a run going; the starting points are drawn by the code itself, from the seed.
The later cases are recorded in float64 alone, with fewer picks: each pick has a new shape, and
compiling takes the original up to a minute a pick.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Every pick has a new shape, so nearly all time goes into compiling: without optimisation it is
# a third. Results move within rounding only.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
ON = {"stop_criterion": "min_kl", "min_kl": -1e9}
CASES = {
    "mean": ({"n": 60, "m": 90, "d": 8, "scale": 1.0}, {"v_init": "mean", **ON}),
    "prev_opt_plane": (
        {"n": 100, "m": 100, "d": 2, "scale": 0.7, "shift": 3.5},
        {
            "v_init": "prev_opt", "normalize": False, "uniform_low": 0.0, "uniform_high": 8.0,
            "uniform_start_size": 100, "grad_desc_iter": 2,
        },
    ),
    "jump": ({"n": 80, "m": 120, "d": 16, "scale": 0.1}, {"v_init": "jump", **ON}),
    "mean_discard": (
        {"n": 70, "m": 90, "d": 5, "scale": 2.0},
        {"v_init": "mean", "discard_nearest_for_xy": True, **ON},
    ),
    "prev_opt_discard_same": (
        {"n": 80, "m": 80, "d": 12, "scale": 1.0, "same": True},
        {"v_init": "prev_opt", "discard_nearest_for_xy": True, **ON},
    ),
    "jump_discard_restarts": (
        {"n": 60, "m": 100, "d": 24, "scale": 1.0},
        {
            "v_init": "jump", "discard_nearest_for_xy": True, "random_init_pct": 0.1,
            "random_restart_prob": 0.4, **ON,
        },
    ),
    "prev_opt_given": (
        {"n": 150, "m": 200, "d": 32, "scale": 10.0, "held": 15},
        {"v_init": "prev_opt", "k": 3, **ON},
    ),
    "prev_opt_resets": (
        {"n": 50, "m": 40, "d": 3, "scale": 1.0},
        {"v_init": "prev_opt", "resets_allowed": True, "max_resets": 2},
    ),
    "mean_fixed_scale": (
        {"n": 120, "m": 60, "d": 64, "scale": 1.0},
        {"v_init": "mean", "scale_factor": 20.0, "lr": 0.05, "grad_desc_iter": 20, **ON},
    ),
}  # fmt: skip
BOTH = ("mean", "prev_opt_plane", "jump", "mean_discard", "prev_opt_discard_same")
CONSTRUCTOR = ("uniform_low", "uniform_high", "uniform_start_size")


def inputs(shape: dict, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Draw target, pool and held data that float32 represents exactly."""
    rng = np.random.default_rng(seed)
    scale, d = shape["scale"], shape["d"]
    shift = shape.get("shift", 0.0)
    target = (shift + scale * rng.standard_normal((shape["n"], d))).astype(np.float32)
    pool = (shift + scale * (0.3 + 1.3 * rng.standard_normal((shape["m"], d)))).astype(np.float32)
    if shape.get("same"):
        pool = target.copy()
    held = None
    if "held" in shape:
        held = (scale * rng.standard_normal((shape["held"], d))).astype(np.float32)
    return target, pool, held


def run(target, pool, held, options: dict, seed: int, picks: int, double: bool) -> dict:
    """Run the published code and return its picks as indices and its divergences."""
    import jax.numpy as jnp
    from GIO.GIOKL import GIOKL

    model = GIOKL.__new__(GIOKL)  # its constructor starts a Spark session that fit never uses
    model.uniform_low, model.uniform_high, model.uniform_start_size = -1, 1, 20
    model.dim, model.random_init = target.shape[1], False
    for name in CONSTRUCTOR:
        if name in options:
            setattr(model, name, options[name])
    passed = {key: value for key, value in options.items() if key not in CONSTRUCTOR}
    kind = np.float64 if double else np.float32
    x, g = jnp.array(target.astype(kind)), jnp.array(pool.astype(kind))
    d = None if held is None else jnp.array(held.astype(kind))
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    started = time.perf_counter()
    with contextlib.redirect_stdout(None):
        w, path, state = model.fit(g, x, d, max_iter=picks - 1, **passed)
    seconds = time.perf_counter() - started
    w = np.asarray(w)
    count = len(path)
    start, chosen = w[: len(w) - count], w[len(w) - count :]
    order = [int(np.flatnonzero((pool.astype(kind) == row).all(axis=1))[0]) for row in chosen]
    return {
        "order": np.array(order, dtype=np.int64),
        "divergence": np.array([float(value) for value in path]),
        "start": start,
        "scale": float(state[1]),
        "resets": int(state[3]),
        "seconds": seconds,
    }


def main(folder: str, only: str = "") -> None:
    """Record all cases that `folder` does not have yet."""
    import jax

    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    known = out / "cases.json"
    index = json.loads(known.read_text()) if known.exists() else {}
    for seed, (name, (shape, options)) in enumerate(CASES.items(), start=11):
        if name in index or (only and name not in only.split(",")):
            continue
        picks = 8 if name in BOTH else 5
        target, pool, held = inputs(shape, seed)
        arrays = {"target": target, "pool": pool}
        if held is not None:
            arrays["held"] = held
        record = {"seed": seed, "picks": picks, "options": options}
        for label, double in (("64", True), ("32", False))[: 2 if name in BOTH else 1]:
            jax.config.update("jax_enable_x64", double)
            result = run(target, pool, held, options, seed, picks, double)
            for key in ("order", "divergence", "start"):
                arrays[f"{key}{label}"] = result[key]
            record |= {f"scale{label}": result["scale"], f"resets{label}": result["resets"]}
            print(
                name, label, len(result["order"]), "picks", f"{result['seconds']:.1f} s", flush=True
            )
        np.savez_compressed(out / f"{name}.npz", **arrays)
        index[name] = record
        known.write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:3])
