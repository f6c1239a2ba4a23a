"""What measures need of an arena, prepared once: modes of the target, clusters, words."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from gio_spark.evaluate.arena import Arena
from gio_spark.evaluate.language import gather, word_codes
from gio_spark.gio.mass import cell_radii
from gio_spark.kernels import nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A mode of the target is made of about so many held-out rows, and there are so many at most.
_ROWS_PER_MODE, _MODES = 40, 50
# A row farther from every mode than so many of its radii is of no mode.
_REACH = 3.0


@dataclass(frozen=True, eq=False)
class Ruler:
    """Arrays that measures read beside the arena.

    Attributes:
        held_cluster: (h,) cluster of the pool's codebook nearest to each held-out row.
        mode: (n,) mode of the held-out target that each pool row belongs to, -1 for none.
        mode_share: (M,) share of the held-out rows in each mode.
        words: (t,) codes of the pool's words, None without texts.
        word_ends: (n,) where each row's words end.
        held_words: (u,) codes of the held-out texts' words, None without texts.
        held_previous: (u,) the word before each.
    """

    held_cluster: NDArray[np.int32]
    mode: NDArray[np.int32]
    mode_share: NDArray[np.float64]
    words: NDArray[np.int32] | None = None
    word_ends: NDArray[np.int64] | None = None
    held_words: NDArray[np.int64] | None = None
    held_previous: NDArray[np.int64] | None = None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that are there, by name."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: array for name, array in found.items() if array is not None}


def make_ruler(arena: Arena, *, seed: int = 0) -> Ruler:
    """Prepare what the measures of an arena need."""
    mode, share = _modes(arena, seed)
    held_cluster = nearest(arena.held_vectors, arena.centroids)[0]
    if arena.texts is None or arena.held_texts is None:
        return Ruler(held_cluster, mode, share)
    words, ends = word_codes(arena.texts)
    held, held_ends = word_codes(arena.held_texts)
    held_words, previous = gather(held, held_ends, np.arange(len(held_ends)))
    if not len(held_words):
        return Ruler(held_cluster, mode, share)
    return Ruler(held_cluster, mode, share, words, ends, held_words, previous)


def _modes(arena: Arena, seed: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    from sklearn.cluster import KMeans

    held = np.asarray(arena.held_vectors, np.float32)
    wanted = int(np.clip(len(held) // _ROWS_PER_MODE, 1, _MODES))
    found = KMeans(wanted, n_init=1, random_state=seed, max_iter=30).fit(held)
    centres = found.cluster_centers_.astype(np.float32)
    own, squared = nearest(held, centres)
    rows = np.bincount(own, minlength=wanted)
    radius = cell_radii(np.bincount(own, squared, minlength=wanted), rows)
    mode, away = nearest(np.asarray(arena.vectors, np.float32), centres)
    far = np.sqrt(np.maximum(away, 0)) > _REACH * radius[mode]
    return np.where(far, -1, mode).astype(np.int32), rows / rows.sum()
