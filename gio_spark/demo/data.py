"""Write the demo's pool, target and held-out files, each row of real data in one of them only."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gio_spark.demo.paragraphs import SCIENTIFIC, order, read_paragraphs, versions

logger = logging.getLogger(__name__)

Kind = Literal["images", "text"]
FILES = ("pool.parquet", "target.parquet", "held_out.parquet")

# Raised when the files change for the same installed packages: older files are written anew.
FORMAT = 1

TARGET_DIGITS, HELD_OUT_DIGITS = 120, 150
# The target wants mostly threes, fives and eights, which look alike; digits are 0 to 9 in order.
CLASS_MIX = np.array([1, 1, 1, 12, 1, 12, 1, 1, 12, 1], dtype=np.float64) / 43
CORRUPTED = 0.4


def build(kind: Kind, folder: Path) -> dict[str, Path]:
    """Write pool, target and held-out rows of one kind as Parquet; return their paths.

    Files that are there already and were made from the same package versions are left alone, so
    that a second run of the demo reads the very same input.

    Args:
        kind: `images` (scikit-learn's digits, a share of the pool corrupted) or `text`
            (paragraphs of the installed packages).
        folder: Where the files go; made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name.partition(".")[0]: folder / name for name in FILES}
    names = ("numpy", "scikit-learn") if kind == "images" else None
    made_from = {"format": FORMAT, "versions": versions(names) if names else versions()}
    note = folder / "made_from.json"
    if note.exists() and json.loads(note.read_text()) == made_from:
        return paths
    note.unlink(missing_ok=True)
    tables = digits() if kind == "images" else text()
    for name, path in paths.items():
        pq.write_table(tables[name], path)
    note.write_text(json.dumps(made_from, indent=1))
    return paths


def digits() -> dict[str, pa.Table]:
    """Split the digits: a target and a held-out set with a skewed mix, the rest is the pool.

    Two fifths of the pool are corrupted: dimmed to a third, or under noise. `damage` and `digit`
    are for the comparison afterwards; nothing in the selection reads them.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = np.rint(images * (255 / 16))
    random = np.random.default_rng(20_240)
    shuffled = random.permutation(len(pixels))
    wanted, rest = _mixed(labels, shuffled, TARGET_DIGITS + HELD_OUT_DIGITS)
    target, held_out = wanted[:TARGET_DIGITS], wanted[TARGET_DIGITS:]

    pool = pixels[rest].copy()
    fate = random.random(len(rest))
    dimmed, noisy = fate < CORRUPTED / 2, (fate >= CORRUPTED / 2) & (fate < CORRUPTED)
    pool[dimmed] *= 0.33
    pool[noisy] += random.normal(0, 90, pool[noisy].shape)
    damage = np.where(dimmed, "dimmed", np.where(noisy, "noisy", "clean"))
    return {
        "pool": _images("pool", rest, pool, labels, damage),
        "target": _images("target", target, pixels[target], labels),
        "held_out": _images("held", held_out, pixels[held_out], labels),
    }


def _mixed(labels: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Take `count` of the rows in the mix of classes of CLASS_MIX; return them and the rest."""
    quota = np.floor(CLASS_MIX * count).astype(int)
    quota[np.argmax(CLASS_MIX)] += count - quota.sum()
    taken = np.concatenate([rows[labels[rows] == digit][:n] for digit, n in enumerate(quota)])
    # Mixed up again: target and held-out rows are cut from this list, both with every class.
    taken = np.random.default_rng(20_241).permutation(taken)
    return taken, np.setdiff1d(rows, taken)


def _images(
    name: str,
    rows: np.ndarray,
    pixels: np.ndarray,
    labels: np.ndarray,
    damage: np.ndarray | None = None,
) -> pa.Table:
    values = np.clip(np.rint(pixels), 0, 255).astype(np.int32)
    offsets = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
    kinds = np.full(len(rows), "clean") if damage is None else damage
    return pa.table(
        {
            "id": [f"{name}-{row:04d}" for row in rows],
            "image": pa.ListArray.from_arrays(offsets, values.ravel()),
            "digit": labels[rows].astype(np.int32),
            "damage": kinds.tolist(),
        }
    )


def text() -> dict[str, pa.Table]:
    """Split the paragraphs: a quarter of the scientific files is the target, a quarter is held out.

    Whole files go to one side, so no paragraph of the pool stands beside one of the target.
    """
    sides: dict[str, list[Any]] = {"pool": [], "target": [], "held_out": []}
    for paragraph in read_paragraphs():
        part = order("side", f"{paragraph.package}/{paragraph.path}") / 2**64
        if paragraph.package not in SCIENTIFIC or part >= 0.5:
            sides["pool"].append(paragraph)
        else:
            sides["target" if part < 0.25 else "held_out"].append(paragraph)
    logger.info("paragraphs %s", {side: len(rows) for side, rows in sides.items()})
    return {
        side: pa.table(
            {
                "id": [p.key for p in rows],
                "text": [p.text for p in rows],
                "package": [p.package for p in rows],
                "kind": [p.kind for p in rows],
            }
        )
        for side, rows in sides.items()
    }
