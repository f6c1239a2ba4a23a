"""The figures of bench_quantize: printed and written as they come, part by part."""

from __future__ import annotations

import json
import os
import platform
from datetime import datetime, timezone
from pathlib import Path

PARTS = ("kernel", "cores", "mllib", "faiss", "assign", "scaling", "big")
_CURVES = {"mllib": "MLlib", "faiss": "faiss-cpu"}


class Figures:
    """A results file in which every part has its figures, curves, machine, date and load."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.part = ""
        try:
            old = json.loads(self.path.read_text())
        except (OSError, ValueError):
            old = {}
        for run in old.get("runs", {}).values():
            run.setdefault("machine", old.get("machine"))
        self.report = {key: old.get(key, empty) for key, empty in _EMPTY.items()}

    def start(self, part: str, a) -> None:
        """Begin a part: its old figures go, those of other parts stay."""
        self.part = part
        self.report["figures"] = [f for f in self.report["figures"] if f["part"] != part]
        self.report["curves"].pop(part, None)
        hidden = ("data", "out", "worker", "parts")
        self.report["runs"][part] = {
            "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "machine": machine(),
            "load": round(os.getloadavg()[0], 1),
            "arguments": {k: v for k, v in vars(a).items() if k not in hidden},
        }

    def end(self, seconds: float) -> None:
        """Note how long the part took, and draw its curves."""
        self.report["runs"][self.part]["minutes"] = round(seconds / 60, 1)
        print(f"  ({seconds / 60:.1f} min)", flush=True)
        if self.part in self.report["curves"]:
            draw(self.report["curves"][self.part], self._picture(self.part), _CURVES[self.part])
        self._write()

    def add(self, figure, value, unit, anchor=None, ratio=None, bar=None, at_least=True) -> None:
        """Add one figure; `bar` is what the ratio must reach (or stay below); none misses it."""
        holds = None
        if bar is not None:
            holds = ratio is not None and bool(ratio >= bar if at_least else ratio <= bar)
        self.report["figures"].append(
            {
                "part": self.part,
                "figure": figure,
                "value": value,
                "unit": unit,
                "anchor": anchor,
                "ratio": ratio,
                "bar": bar,
                "holds": holds,
            }
        )
        shown = [figure, f"{value:,.4g} {unit}" if isinstance(value, float) else f"{value} {unit}"]
        if anchor is not None:
            shown.append(f"beside {anchor}")
        if ratio is not None:
            shown.append(f"ratio {ratio:.3g}")
        if bar is not None:
            shown.append(f"bar {bar:.3g} {'holds' if holds else 'MISSED'}")
        print("  " + " | ".join(shown), flush=True)
        self._write()

    def curve(self, name: str, points: list[dict]) -> None:
        """Keep and print inertia over time: a point per pass, or per number of iterations."""
        kept = [{k: p[k] for k in ("pass", "seconds", "inertia")} for p in points]
        self.report["curves"].setdefault(self.part, {})[name] = kept
        line = "  ".join(f"{p['seconds']:.1f}s {p['inertia']:.5g}" for p in kept)
        print(f"  {name}: {line}", flush=True)
        self._write()

    def close(self) -> None:
        """Print which bars hold, of all parts in the file."""
        for f in self.report["figures"]:
            if f["bar"] is not None:
                word = "holds " if f["holds"] else "MISSED"
                ratio = "none" if f["ratio"] is None else f"{f['ratio']:.3g}"
                print(f"{word} {f['figure']}: {ratio} (bar {f['bar']:.3g})")
        print(f"written to {self.path}")

    def _picture(self, part: str) -> Path:
        return self.path.with_name(f"{self.path.stem}-{part}.png")

    def _write(self) -> None:
        # Written at once: a run that is cut short keeps what it measured.
        self.report["figures"].sort(key=lambda f: PARTS.index(f["part"]))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.report, indent=1) + "\n")


_EMPTY: dict = {"runs": {}, "figures": [], "curves": {}}


def machine() -> dict:
    """Return what the figures of a part were measured on."""
    return {
        "cores": os.cpu_count(),
        "processor": processor(),
        "python": platform.python_version(),
    }


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "")


def draw(curves: dict[str, list[dict]], path: Path, other: str) -> None:
    """Draw inertia over time; the line at 1 % above the other's last point is the goal."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, points in curves.items():
        shown = [p for p in points if p["seconds"] > 0]
        axes.plot(
            [p["seconds"] for p in shown],
            [p["inertia"] for p in shown],
            marker="o",
            markersize=4,
            color=None if name.startswith("ours") else "0.4",
            label=name,
        )
        if not name.startswith("ours"):
            goal = 1.01 * points[-1]["inertia"]
            axes.axhline(goal, color="0.7", linewidth=0.8, label=f"{other}'s last inertia + 1 %")
    axes.set_xscale("log")
    axes.set_xlabel("seconds from the call of fit")
    axes.set_ylabel("inertia per row")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
