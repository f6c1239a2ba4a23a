"""Files of the demo: pool, target and held-out rows, with each row in one of them only."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gio_spark.demo.paragraphs import SCIENTIFIC, hash_order, read_paragraphs, versions

logger = logging.getLogger(__name__)

Kind = Literal["images", "text"]
FILES = ("pool.parquet", "target.parquet", "held_out.parquet")

# Raised when the files change for the same installed packages, so that they are written again.
FORMAT = 1

TARGET_DIGITS, HELD_OUT_DIGITS = 120, 150
# Shares of the digits 0 to 9 in the target: mostly threes, fives and eights, which look alike.
CLASS_MIX = np.array([1, 1, 1, 12, 1, 12, 1, 1, 12, 1], dtype=np.float64) / 43
CORRUPTED = 0.4


def build(kind: Kind, folder: Path) -> dict[str, Path]:
    """Paths of the Parquet files of pool, target and held-out rows, written if necessary.

    Existing files from the same package versions are not written again, so that a second run of the
    demo reads the same input.

    Args:
        kind: `images` (scikit-learn's digits, a share of the pool corrupted) or `text`
            (paragraphs of the installed packages).
        folder: Folder of the files, created if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name.partition(".")[0]: folder / name for name in FILES}
    names = ("numpy", "scikit-learn") if kind == "images" else None
    origin = {"format": FORMAT, "versions": versions(names) if names else versions()}
    version_file = folder / "made_from.json"
    if version_file.exists() and json.loads(version_file.read_text()) == origin:
        return paths
    version_file.unlink(missing_ok=True)
    tables = digits() if kind == "images" else text()
    for name, path in paths.items():
        pq.write_table(tables[name], path)
    version_file.write_text(json.dumps(origin, indent=1))
    return paths


def digits() -> dict[str, pa.Table]:
    """Digits as target and held-out rows with skewed class shares, and all others as pool.

    Two fifths of the pool are damaged: dimmed to a third, or noisy. The columns `damage` and
    `digit` are for the comparison after the run; the selection does not read them.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = np.rint(images * (255 / 16))
    random = np.random.default_rng(20_240)
    shuffled = random.permutation(len(pixels))
    target_like, other_rows = _rows_in_class_mix(labels, shuffled, TARGET_DIGITS + HELD_OUT_DIGITS)
    target, held_out = target_like[:TARGET_DIGITS], target_like[TARGET_DIGITS:]

    pool = pixels[other_rows].copy()
    damage_draw = random.random(len(other_rows))
    dimmed, noisy = (
        damage_draw < CORRUPTED / 2,
        (damage_draw >= CORRUPTED / 2) & (damage_draw < CORRUPTED),
    )
    pool[dimmed] *= 0.33
    pool[noisy] += random.normal(0, 90, pool[noisy].shape)
    damage = np.where(dimmed, "dimmed", np.where(noisy, "noisy", "clean"))
    return {
        "pool": _image_table("pool", other_rows, pool, labels, damage),
        "target": _image_table("target", target, pixels[target], labels),
        "held_out": _image_table("held", held_out, pixels[held_out], labels),
    }


def _rows_in_class_mix(
    labels: np.ndarray, rows: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of rows: `count` rows with the class shares of CLASS_MIX, and all others."""
    class_counts = np.floor(CLASS_MIX * count).astype(int)
    class_counts[np.argmax(CLASS_MIX)] += count - class_counts.sum()
    rows_in_mix = np.concatenate(
        [
            rows[labels[rows] == digit][:count_of_digit]
            for digit, count_of_digit in enumerate(class_counts)
        ]
    )
    # Shuffled, because target and held-out rows are slices of this list with all classes.
    rows_in_mix = np.random.default_rng(20_241).permutation(rows_in_mix)
    return rows_in_mix, np.setdiff1d(rows, rows_in_mix)


def _image_table(
    name: str,
    rows: np.ndarray,
    pixels: np.ndarray,
    labels: np.ndarray,
    damage: np.ndarray | None = None,
) -> pa.Table:
    values = np.clip(np.rint(pixels), 0, 255).astype(np.int32)
    offsets = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
    damage_names = np.full(len(rows), "clean") if damage is None else damage
    return pa.table(
        {
            "id": [f"{name}-{row:04d}" for row in rows],
            "image": pa.ListArray.from_arrays(offsets, values.ravel()),
            "digit": labels[rows].astype(np.int32),
            "damage": damage_names.tolist(),
        }
    )


def text() -> dict[str, pa.Table]:
    """Paragraphs as target, held-out rows (a quarter of the scientific files each) and pool.

    All paragraphs of a file have the same role, so that no pool text continues a target text.
    """
    paragraphs_by_role: dict[str, list[Any]] = {"pool": [], "target": [], "held_out": []}
    for paragraph in read_paragraphs():
        file_share = hash_order("side", f"{paragraph.package}/{paragraph.path}") / 2**64
        if paragraph.package not in SCIENTIFIC or file_share >= 0.5:
            paragraphs_by_role["pool"].append(paragraph)
        else:
            paragraphs_by_role["target" if file_share < 0.25 else "held_out"].append(paragraph)
    logger.info("paragraphs %s", {role: len(rows) for role, rows in paragraphs_by_role.items()})
    return {
        role: pa.table(
            {
                "id": [paragraph.key for paragraph in rows],
                "text": [paragraph.text for paragraph in rows],
                "package": [paragraph.package for paragraph in rows],
                "kind": [paragraph.kind for paragraph in rows],
            }
        )
        for role, rows in paragraphs_by_role.items()
    }
