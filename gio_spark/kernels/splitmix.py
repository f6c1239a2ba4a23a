"""The finalizer of SplitMix64 (Steele, Lea, Flood 2014): spreads 64 bits over all bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def mix64(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Mix the bits of hashes, so that sums and sequences of similar hashes do not collide.

    Args:
        values: uint64 of any shape.

    Returns:
        uint64 of the same shape.
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))
