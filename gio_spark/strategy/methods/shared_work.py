"""Work that methods, budgets or seeds share: computed once per dataset, billed to each user.

The first call of `compute_once` with a key computes the value, later calls reuse it. So that the
cost of a method does not depend on which method ran first, `Meter` adds the time of every reused
item to the time of the method.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from gio_spark.strategy.evaluation_dataset import EvaluationDataset

T = TypeVar("T")

_INTERVAL = 0.02
_STATM = Path("/proc/self/statm")
_MIB = 2**20


@dataclass(eq=False)
class _WorkItem:
    """Item of shared work: its value, its own cost, and the items that it used."""

    value: Any = None
    done: bool = False
    seconds: float = 0.0
    memory_mb: float = 0.0
    uses: set[_WorkItem] = field(default_factory=set)
    lock: threading.RLock = field(default_factory=threading.RLock)


_ITEMS: weakref.WeakKeyDictionary[EvaluationDataset, dict[Hashable, _WorkItem]] = (
    weakref.WeakKeyDictionary()
)
_ITEMS_LOCK = threading.Lock()
_THREAD_STATE = threading.local()


def compute_once(dataset: EvaluationDataset, key: Hashable, compute: Callable[[], T]) -> T:
    """Value of `compute` for a dataset, computed at the first call with this key.

    The value lives as long as the dataset and must not refer to it. Callers must not change it.

    Args:
        dataset: Dataset that the value belongs to.
        key: Name of the value with everything but the dataset that it depends on (the seed).
        compute: Function without arguments that computes the value.
    """
    with _ITEMS_LOCK:
        item = _ITEMS.setdefault(dataset, {}).setdefault(key, _WorkItem())
    with item.lock:
        if not item.done:
            meter = Meter()
            with meter:
                started = time.perf_counter()
                item.value = compute()
                seconds = time.perf_counter() - started
            item.seconds = seconds - meter.inside_seconds
            item.memory_mb = meter.memory_mb
            item.uses = meter.used
            item.done = True
            _bill(item, seconds)
        else:
            _bill(item, None)
    return item.value  # type: ignore[no-any-return]


def _bill(item: _WorkItem, seconds: float | None) -> None:
    """Add an item to the running meter; `seconds` is its wall time if it was computed now."""
    meter: Meter | None = getattr(_THREAD_STATE, "meter", None)
    if meter is None:
        return
    meter.used |= {item, *item.uses}
    if seconds is None:
        meter.reused |= {item, *item.uses} - meter.computed
    else:
        meter.inside_seconds += seconds
        computed = {item} | {inner for inner in item.uses if inner not in meter.reused}
        meter.computed |= computed


class Meter:
    """Meter of the peak memory and the shared items of a `with` block.

    Attributes:
        inside_seconds: Seconds spent on items that were computed in the block.
        used: Items used, including those that other items used.
        computed: Items computed in the block.
        reused: Items that had been computed before.
    """

    def __init__(self) -> None:
        self.inside_seconds = 0.0
        self.used: set[_WorkItem] = set()
        self.computed: set[_WorkItem] = set()
        self.reused: set[_WorkItem] = set()
        self._peak = self._start = float("nan")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._outer: Meter | None = None

    def __enter__(self) -> Meter:
        """Start measuring."""
        self._outer = getattr(_THREAD_STATE, "meter", None)
        _THREAD_STATE.meter = self
        self._start = self._peak = _resident_mb()
        if self._start == self._start:  # not NaN
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop measuring."""
        _THREAD_STATE.meter = self._outer
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._peak = max(self._peak, _resident_mb())
        if self._outer is not None:
            # Items that an inner block reused are reused by the outer block as well.
            self._outer.reused |= self.reused - self._outer.computed

    @property
    def borrowed_seconds(self) -> float:
        """Seconds that earlier calls spent on items used in the block."""
        return sum(item.seconds for item in self.reused)

    @property
    def memory_mb(self) -> float:
        """Peak growth of resident memory, MiB, in the block or when a reused item was computed."""
        growth = max(0.0, self._peak - self._start)
        if growth != growth:
            return growth
        return max([growth, *(item.memory_mb for item in self.reused)])

    def _watch(self) -> None:
        while not self._stop.wait(_INTERVAL):
            self._peak = max(self._peak, _resident_mb())


def _resident_mb() -> float:
    """Resident memory of the process in MiB, NaN if the platform does not report it."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE / _MIB
    except (OSError, ValueError, IndexError):
        return float("nan")


def _page_size() -> int:
    import os

    try:
        return os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 4096


_PAGE = _page_size()
