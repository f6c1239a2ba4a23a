"""Measure the selection engine beside the published code (grad-info-opt 0.1.2), on the same input.

    python benchmarks/bench_gio.py [--reference PYTHON] [--reference-picks 5]

The published code has pins of its own and runs in an environment of its own: `--reference` or
GIO_REFERENCE_PYTHON names its Python; without one it is set up under build/reference. Each figure
is measured in a process of its own, so that its peak memory is its own (interpreter, numpy and
input included). Prints a table and writes benchmarks/results/gio.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
N, D, HELD, PICKS = 1500, 768, 20, 1500


def mixture(rows: int, dimension: int, seed: int, modes: int = 50) -> np.ndarray:
    """Draw rows of a mixture of Gaussians, float32."""
    middles = np.random.default_rng(99).standard_normal((modes, dimension))
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((rows, dimension))
    return (middles[rng.integers(modes, size=rows)] + noise).astype(np.float32)


def same_inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return target, pool and initial data of the comparison."""
    held = np.random.default_rng(3).uniform(-1, 1, (HELD, D))
    held /= np.linalg.norm(held, axis=1, keepdims=True)
    return mixture(N, D, 1), mixture(N, D, 2), held.astype(np.float32)


# --- figures: each returns what it measured, seconds of work alone -------------------------------


def clocked(work, repeat: int = 1):
    """Return the least wall time of `work`, its CPU time and its last result."""
    best = (np.inf, 0.0, None)
    for _ in range(repeat):
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        taken = (time.perf_counter() - wall, time.process_time() - cpu, result)
        best = taken if taken[0] < best[0] else best
    return best


def figure_pick() -> dict:
    """Time one faithful pick (50 steps), set-up included."""
    from gio_spark.gio import PublishedOptions, published_run

    target, pool, held = same_inputs()

    def run(picks: int):
        options = PublishedOptions(stop_criterion="min_kl", min_kl=-1e9, max_iter=picks)
        return published_run(target, pool, options, D=held)

    many = 11
    wall, cpu, result = clocked(lambda: run(many), 3)
    # The first pick descends three times as long: 11 picks are the work of 13.
    return {
        "seconds": wall / (many + 2),
        "cpu": cpu / (many + 2),
        "order": [int(pick) for pick in result.order],
        "divergence": [float(value) for value in result.divergence],
    }


def figure_exact() -> dict:
    """Time the exact path of all picks."""
    from gio_spark.gio import exact_path

    target, pool, held = same_inputs()
    wall, cpu, result = clocked(lambda: exact_path(target, pool, initial=held), 3)
    return {"seconds": wall, "cpu": cpu, "picks": len(result.order)}


def figure_budgeted() -> dict:
    """Time budgeted KL at K = 65,536, optimum, certificate and whole rows."""
    from gio_spark.gio import SelectionProblem, select

    rng = np.random.default_rng(0)
    clusters = 65_536
    sizes, mass = rng.integers(0, 30_000, clusters), rng.gamma(0.5, size=clusters)
    points = np.zeros((clusters, 1), dtype=np.float32)
    problem = SelectionProblem(points, sizes, mass, 0.1)
    wall, cpu, result = clocked(lambda: select("budgeted_kl", problem), 3)
    return {"seconds": wall, "cpu": cpu, "gap": result.certificate.gap}


def figure_sources() -> dict:
    """Time budgeted KL at K = 65,536 with caps and floors on eight sources."""
    from gio_spark.gio import SelectionProblem, select

    rng = np.random.default_rng(0)
    counts = rng.integers(0, 100, (65_536, 8))
    counts[:, 0] *= 5
    problem = SelectionProblem(
        np.zeros((65_536, 1), dtype=np.float32),
        counts.sum(axis=1),
        rng.gamma(0.5, size=65_536),
        10**7,
        source_counts=counts,
        source_names=tuple(f"s{index}" for index in range(8)),
        caps={"s0": 0.1, "s2": 0.05},
        floors={"s1": 0.2},
    )
    wall, cpu, result = clocked(lambda: select("budgeted_kl", problem))
    return {"seconds": wall, "cpu": cpu, "gap": result.certificate.gap}


def figure_knn() -> dict:
    """Time the k-NN greedy: 1,500 picks of 10,000 candidates for 2,000 target rows."""
    from gio_spark.gio import knn_greedy

    target, pool = mixture(2000, D, 1), mixture(10_000, D, 2)
    wall, cpu, _ = clocked(lambda: knn_greedy(target, pool, 1500))
    return {"seconds": wall, "cpu": cpu}


def figure_energy() -> dict:
    """Time the greedy energy distance on the same input."""
    from gio_spark.gio import energy_greedy

    target, pool = mixture(2000, D, 1), mixture(10_000, D, 2)
    wall, cpu, _ = clocked(lambda: energy_greedy(target, pool, 1500))
    return {"seconds": wall, "cpu": cpu}


def figure_large_knn() -> dict:
    """Time 100 picks of the k-NN greedy at K = 65,536 x 10,000 (64 dimensions)."""
    from gio_spark.gio import knn_greedy

    target, pool = mixture(10_000, 64, 1), mixture(65_536, 64, 2)
    wall, cpu, _ = clocked(lambda: knn_greedy(target, pool, 100))
    return {"seconds": wall, "cpu": cpu}


def figure_large_energy() -> dict:
    """Time 100 picks of the greedy energy distance at K = 65,536 x 10,000 (64 dimensions)."""
    from gio_spark.gio import energy_greedy

    target, pool = mixture(10_000, 64, 1), mixture(65_536, 64, 2)
    wall, cpu, _ = clocked(lambda: energy_greedy(target, pool, 100))
    return {"seconds": wall, "cpu": cpu}


# --- the published code --------------------------------------------------------------------------


def reference_python(given: str | None) -> Path:
    """Return the Python that has the published code, set up where it is missing."""
    if given:
        return Path(given)
    folder = ROOT / "build" / "reference"
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"setting up the published code in {folder} (minutes)", flush=True)
        venv.create(folder, with_pip=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "-q", "grad-info-opt==0.1.2"], check=True
        )
    return python


def reference(python: Path, picks: int) -> dict:
    """Run the published code on the same input and return its report."""
    target, pool, held = same_inputs()
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "in.npz"), Path(folder, "out.json")
        np.savez(source, target=target, pool=pool, held=held)
        worker = ROOT / "benchmarks" / "reference_gio.py"
        subprocess.run([str(python), str(worker), str(source), str(out), str(picks)], check=True)
        return json.loads(out.read_text())


# --- table ---------------------------------------------------------------------------------------


def measured(name: str) -> dict:
    """Measure a figure in a process of its own."""
    command = [sys.executable, __file__, "--figure", name]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def row(figure, value, unit, anchor=None, ratio=None, bar=None, holds=None) -> dict:
    """Return one line of the results."""
    names = ("figure", "value", "unit", "anchor", "ratio", "bar", "holds")
    return dict(zip(names, (figure, value, unit, anchor, ratio, bar, holds), strict=True))


def table(found: dict, theirs: dict | None) -> list[dict]:
    """Return the figures with their anchors and bars."""
    rows = []
    pick, exact = found["pick"], found["exact"]
    size = f"{N} x {N} x {D}"
    if theirs:
        mean = float(np.mean(theirs["picks"]))
        total = mean * PICKS
        many = len(theirs["picks"])
        same = sum(a == b for a, b in zip(theirs["order"], pick["order"], strict=False))
        rows += [
            row(
                f"faithful pick, {size}", pick["seconds"], "s",
                f"published code, mean of {many} picks after the first: {mean:.2f} s",
                mean / pick["seconds"], ">= 100", mean / pick["seconds"] >= 100,
            ),
            row(
                f"exact path of {exact['picks']} picks, {size}", exact["seconds"], "s",
                f"published code, {many} picks measured and extrapolated: {total:.0f} s",
                total / exact["seconds"], ">= 20000", total / exact["seconds"] >= 20_000,
            ),
            row(
                "picks equal to the published code's", same, f"of {len(theirs['order'])}",
                "float32 there, float64 here",
            ),
            row("peak memory of the published code", theirs["peak_mb"], "MB"),
        ]  # fmt: skip
    else:
        rows += [row(f"faithful pick, {size}", pick["seconds"], "s")]
        rows += [row(f"exact path of {exact['picks']} picks, {size}", exact["seconds"], "s")]
    timed = (
        ("budgeted", "budgeted KL, K = 65,536, plan and certificate", 2.0),
        ("sources", "the same under caps and floors of 8 sources", None),
        ("knn", f"k-NN greedy, 1,500 of 10,000 x 2,000 x {D}", 10.0),
        ("energy", f"greedy energy distance, 1,500 of 10,000 x 2,000 x {D}", None),
        ("large_knn", "k-NN greedy, 100 of 65,536 x 10,000 x 64", None),
        ("large_energy", "greedy energy distance, 100 of 65,536 x 10,000 x 64", None),
    )
    for name, figure, bar in timed:
        if name not in found:
            continue
        seconds = found[name]["seconds"]
        limit = None if bar is None else f"< {bar:g} s"
        holds = None if bar is None else seconds < bar
        rows.append(row(figure, seconds, "s", bar=limit, holds=holds))
    for name, result in found.items():
        large = name.startswith("large")
        rows.append(
            row(
                f"peak memory, {name}", result["peak_mb"], "MB",
                bar="< 2048 MB" if large else None,
                holds=result["peak_mb"] < 2048 if large else None,
            )
        )  # fmt: skip
    return rows


def show(rows: list[dict]) -> None:
    """Print the figures."""
    for line in rows:
        ratio = "" if line["ratio"] is None else f"  x{line['ratio']:,.0f}"
        bar = "" if line["bar"] is None else f"  bar {line['bar']}: "
        verdict = "" if line["holds"] is None else ("holds" if line["holds"] else "MISSED")
        anchor = "" if line["anchor"] is None else f"  ({line['anchor']})"
        print(f"{line['figure']:<62} {line['value']:>9.3f} {line['unit']}{ratio}{bar}{verdict}")
        if anchor:
            print(f"    {anchor.strip()}")


def main() -> None:
    """Measure everything, print the table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", default=os.environ.get("GIO_REFERENCE_PYTHON"))
    parser.add_argument("--reference-picks", type=int, default=5, help="after the first one")
    parser.add_argument("--without-reference", action="store_true")
    parser.add_argument("--out", default=str(ROOT / "benchmarks" / "results" / "gio.json"))
    parser.add_argument("--figure", default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    figures = {key[7:]: value for key, value in globals().items() if key.startswith("figure_")}
    if given.figure:
        result = figures[given.figure]()
        result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(result))
        return
    found = {}
    for name in figures:
        print(f"measuring {name}", flush=True)
        found[name] = measured(name)
    theirs = None
    if not given.without_reference:
        python = reference_python(given.reference)
        print("measuring the published code (minutes)", flush=True)
        theirs = reference(python, given.reference_picks + 1)
    rows = table(found, theirs)
    show(rows)
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    out = Path(given.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "figures": rows}, indent=1) + "\n")
    print(f"written: {out}")


if __name__ == "__main__":
    main()
