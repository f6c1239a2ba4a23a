"""Measure the quantise stage against MLlib, faiss-cpu and the bare numpy kernel.

    python benchmarks/bench_quantize.py [--parts mllib,big] [--data FOLDER]

Ratios are between runs of the same program on the same data and machine, one after another; each
part runs in processes of its own. Parts that are run alone replace their own figures in the results
and leave those of the others. Needs Java for MLlib and faiss-cpu for its comparison (`pip install
faiss-cpu`, used by nothing else), and 5 GB of disk for the rows of the largest size.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import quantize_parts
from quantize_figures import PARTS, Figures

ROOT = Path(__file__).resolve().parent.parent


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of faiss and assignment")
    parser.add_argument("--mllib-rows", type=int, default=1_000_000, help="a size MLlib can finish")
    parser.add_argument("--end-rows", type=int, default=500_000, help="rows of one core to two")
    parser.add_argument("--score-rows", type=int, default=200_000, help="rows of the curves")
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--clusters", type=int, default=1_500)
    parser.add_argument("--kernel-clusters", type=int, default=8_192)
    parser.add_argument("--iterations", type=int, default=10, help="MLlib's and faiss's")
    parser.add_argument("--scaling", default="100000,300000,1000000,3000000")
    parser.add_argument("--scaling-clusters", type=int, default=256)
    parser.add_argument("--big-rows", type=int, default=300_000)
    parser.add_argument("--big-clusters", type=int, default=65_536)
    parser.add_argument("--big-passes", type=int, default=4)
    parser.add_argument("--spin-rounds", type=int, default=5)
    parser.add_argument("--spin-seconds", type=float, default=3.0)
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--engines", default="embedded,spark")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--data", default=None, help="folder for the rows; none: a temporary one")
    parser.add_argument("--out", default=str(ROOT / "benchmarks" / "results" / "quantize.json"))
    parser.add_argument("--worker", default=None, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def run_part(a: argparse.Namespace, part: str, word: str = "", wait: bool = True):
    """Run one part in a process of its own; one BLAS thread each."""
    out = tempfile.mktemp(suffix=".json", dir=a.data)  # noqa: S306 - our own folder
    options = vars(a) | {"worker": f"{part}:{word}:{out}"}
    command = [sys.executable, __file__]
    for name, value in options.items():
        if value is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    env = dict(os.environ, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    if part == "faiss":
        env |= {"OPENBLAS_NUM_THREADS": str(a.cores), "OMP_NUM_THREADS": str(a.cores)}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")])
    child = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)

    def result() -> dict | None:
        _, errors = child.communicate()
        if child.returncode:
            last = (errors or "").strip().splitlines()
            print(f"  {part} {word}: failed, {last[-1] if last else child.returncode}", flush=True)
            return None
        return json.loads(Path(out).read_text())

    return result() if wait else result


def main(argv: list[str] | None = None) -> None:
    """Run the parts asked for."""
    a = arguments(argv)
    if a.worker:
        part, word, out = a.worker.split(":", 2)
        found = getattr(quantize_parts, f"part_{part}")(a, word)
        Path(out).write_text(json.dumps(found))
        os._exit(0)  # engines keep threads that are not waited for
    parts = a.parts.split(",")
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        sys.exit(f"unknown parts {unknown}: choose from {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory(prefix="bench-quantize-") as folder:
        a.data = a.data or folder
        Path(a.data).mkdir(parents=True, exist_ok=True)
        figures = Figures(a.out)
        for part in parts:
            began = time.monotonic()
            load = os.getloadavg()[0]
            print(f"{part}: d={a.dimension} cores={a.cores} load={load:.1f}", flush=True)
            if run_part(a, "data", part) is None:
                continue
            figures.start(part, a)
            globals()[f"show_{part}"](a, figures, a.engines.split(","))
            figures.end(time.monotonic() - began)
    figures.close()


def show_kernel(a, figures: Figures, engines) -> None:
    """Print the certified kernel beside the bare one."""
    for clusters, found in (run_part(a, "kernel") or {}).items():
        figures.add(
            f"certified kernel, one thread, K={clusters}",
            found["certified"],
            "GFLOP/s",
            f"bare numpy {found['bare']:.1f}",
            found["certified"] / found["bare"],
        )


def show_cores(a, figures: Figures, engines) -> None:
    """Print what a second core gives to pinned workers, and to an assignment end to end."""
    rounds: list[dict[str, float]] = []
    for _ in range(a.spin_rounds):
        begin = time.time() + 4.0  # after the imports
        one = run_part(a, "spin", f"0@{begin}")
        begin = time.time() + 5.0
        both = [run_part(a, "spin", f"{core}@{begin}", wait=False) for core in range(2)]
        two = [wait() for wait in both]
        if one and all(two):
            shares = [w["share"] for w in (one, *two)]
            if max(w["late"] for w in (one, *two)) > 0:
                print("  a worker began late: give more time", flush=True)
            rate, bare = (sum(w[key] for w in two) for key in ("rate", "bare"))
            rounds.append(
                {
                    "rate": rate,
                    "one": one["rate"],
                    "gain": rate / one["rate"],
                    "bare": bare / one["bare"],
                    "share": min(shares),
                }
            )
    if rounds:
        middle = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
        figures.add(
            "pinned kernel workers, one core to two",
            middle["rate"],
            "rows/s",
            f"one core {middle['one']:.0f}; a bare numpy product gains {middle['bare']:.2f}; "
            f"least share of a core that a worker got {middle['share']:.2f}",
            middle["gain"],
            1.8,
        )
    for engine in engines:
        found = [run_part(a, "end", f"{engine}@{cores}") for cores in (1, 2)]
        if all(found):
            alone, both_cores = (f["seconds"] for f in found)
            figures.add(
                f"assignment end to end, {a.end_rows} rows, one core to two, {engine}",
                both_cores,
                "s",
                f"one core {alone:.1f} s",
                alone / both_cores,
            )


def show_mllib(a, figures: Figures, engines) -> None:
    """Print the time to MLlib's inertia plus 1 %."""
    theirs = run_part(a, "mllib", "spark")
    if theirs is None:
        return
    last = theirs["curve"][-1]
    figures.curve("MLlib, block solver, random start", theirs["curve"])
    _race(
        a, figures, engines, a.mllib_rows, "MLlib", last, lambda ours, them: (them / ours, 20, True)
    )


def show_faiss(a, figures: Figures, engines) -> None:
    """Print our fit beside faiss-cpu's."""
    theirs = run_part(a, "faiss")
    if theirs is None:
        return
    figures.curve("faiss-cpu", [{"pass": a.iterations, **theirs}])
    _race(
        a,
        figures,
        engines,
        a.rows,
        "faiss-cpu",
        theirs,
        lambda ours, them: (ours / them, 1.5, False),
    )


def _race(a, figures: Figures, engines, rows, name, theirs, judge) -> None:
    """Print when our fit has come within 1 % of another's inertia; `judge` gives ratio and bar."""
    for engine in engines:
        ours = run_part(a, "fit", f"{engine}@{rows}")
        if ours is None:
            continue
        figures.curve(f"ours, {engine}", ours["curve"])
        goal = 1.01 * theirs["inertia"]
        reached = next((p["seconds"] for p in ours["curve"] if p["inertia"] <= goal), None)
        ratio, bar, at_least = judge(reached or ours["seconds"], theirs["seconds"])
        figures.add(
            f"time to {name}'s inertia + 1 %, {rows} rows, K={a.clusters}, {engine}",
            reached or ours["seconds"],
            "s" if reached else "s, not reached",
            f"{name}, {a.iterations} iterations: {theirs['seconds']:.1f} s, inertia "
            f"{theirs['inertia']:.5g}; our whole fit: {ours['seconds']:.1f} s, inertia "
            f"{ours['curve'][-1]['inertia']:.5g}",
            ratio if reached else None,
            bar,
            at_least,
        )


def show_assign(a, figures: Figures, engines) -> None:
    """Print assignment inside the engine per core beside the bare kernel."""
    for engine in engines:
        for clusters, one in (run_part(a, "assign", engine) or {}).items():
            figures.add(
                f"assignment with scan and write, {a.rows} rows, K={clusters}, {engine}, per core",
                one["per_core"],
                "GFLOP/s",
                f"bare kernel {one['bare']:.1f}; {one['seconds']:.1f} s in all",
                one["per_core"] / one["bare"],
                0.6 if int(clusters) == a.kernel_clusters else None,
            )


def show_scaling(a, figures: Figures, engines) -> None:
    """Print the exponent of time over rows, and memory."""
    for engine in engines:
        found = run_part(a, "scaling", engine)
        if found is None:
            continue
        points = found["points"]
        for p in points:
            print(f"  {p['rows']:>9,} rows {p['seconds']:7.1f} s", flush=True)
        slope = _slope(points)
        figures.add(
            f"exponent of time over rows, {a.scaling} rows, {engine}",
            slope,
            "",
            f"1 is linear; between the last two sizes {_slope(points[-2:]):.2f}; "
            f"{', '.join(str(round(p['seconds'], 1)) for p in points)} s",
            slope,
            1.1,
            at_least=False,
        )
        first, last = points[0], points[-1]
        if engine == "embedded":  # driver, workers and engine are one process
            figures.add(
                "process peak, most rows over fewest, embedded",
                last["driver_mb"],
                "MB",
                f"{first['driver_mb']:.0f} MB",
                last["driver_mb"] / first["driver_mb"],
            )
            continue
        figures.add(
            f"driver peak, most rows over fewest, {engine}",
            last["driver_mb"],
            "MB",
            f"{first['driver_mb']:.0f} MB; its JVM {first['jvm']:.0f} and {last['jvm']:.0f} MB",
            last["driver_mb"] / first["driver_mb"],
            1.3,
            at_least=False,
        )
        figures.add(
            f"worker peak over forecast, {engine}",
            last["worker"],
            "MB",
            f"forecast {found['forecast_worker_mb']:.0f} MB",
            last["worker"] / found["forecast_worker_mb"],
            1.0,
            at_least=False,
        )


def _slope(points: list[dict]) -> float:
    """Return the exponent of seconds over rows."""
    if len(points) < 2:
        return math.nan
    rows = [math.log(p["rows"]) for p in points]
    return statistics.linear_regression(rows, [math.log(p["seconds"]) for p in points]).slope


def show_big(a, figures: Figures, engines) -> None:
    """Print the figures of very many clusters."""
    engine = engines[0]
    found = run_part(a, "big", engine)
    if found is None:
        return
    figures.add(
        f"K={found['clusters']} on {found['rows']} rows, fit and assignment, {engine}",
        found["seconds"],
        "s",
        f"fit of {a.big_passes} passes {found['fit_seconds']:.1f} s",
    )
    figures.add(
        "two levels against exact assignment",
        found["agreement"]["agreement"],
        "share of rows",
        f"inertia above exact {found['agreement']['excess']:.4f}",
    )
    pairs = {"process": ("process_mb", "forecast_mb")}
    if engine != "embedded":
        pairs = {
            "driver": ("process_mb", "forecast_driver_mb"),
            "worker": ("worker", "forecast_worker_mb"),
        }
    for what, (peak, forecast) in pairs.items():
        figures.add(
            f"{what} peak over forecast, K={found['clusters']}, {engine}",
            found[peak],
            "MB",
            f"forecast {found[forecast]:.0f} MB",
            found[peak] / found[forecast],
            1.0,
            at_least=False,
        )


if __name__ == "__main__":
    main()
