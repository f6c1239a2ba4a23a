"""Work that several methods, budgets or seeds share, done once per dataset and billed to each user.

A method asks for a part by name with `shared`; the first to ask computes it. So that a method's
cost does not depend on which one ran first, `Meter` adds to a method's own time that of every
part that it used and found done.
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
    from gio_spark.evaluate.dataset import EvaluationDataset

T = TypeVar("T")

_INTERVAL = 0.02
_STATM = Path("/proc/self/statm")
_MIB = 2**20


@dataclass(eq=False)
class _Part:
    """A shared piece of work: its value, its own cost, and the parts that it used itself."""

    value: Any = None
    done: bool = False
    seconds: float = 0.0
    memory_mb: float = 0.0
    uses: set[_Part] = field(default_factory=set)
    lock: threading.RLock = field(default_factory=threading.RLock)


_PARTS: weakref.WeakKeyDictionary[EvaluationDataset, dict[Hashable, _Part]] = (
    weakref.WeakKeyDictionary()
)
_PARTS_LOCK = threading.Lock()
_LOCAL = threading.local()


def shared(dataset: EvaluationDataset, key: Hashable, make: Callable[[], T]) -> T:
    """Part of a dataset's work, computed at the first call with this key.

    The value lives as long as the dataset, and must not refer to it. Callers do not change it.

    Args:
        dataset: What the part belongs to.
        key: Name of the part, with everything but the dataset that it depends on (the seed).
        make: Computes it.
    """
    with _PARTS_LOCK:
        part = _PARTS.setdefault(dataset, {}).setdefault(key, _Part())
    with part.lock:
        if not part.done:
            meter = Meter()
            with meter:
                began = time.perf_counter()
                part.value = make()
                wall = time.perf_counter() - began
            part.seconds = wall - meter.inside
            part.memory_mb = meter.memory_mb
            part.uses = meter.used
            part.done = True
            _tell(part, wall)
        else:
            _tell(part, None)
    return part.value  # type: ignore[no-any-return]


def _tell(part: _Part, wall: float | None) -> None:
    """Tell the meter that runs that a part was used; `wall` where it was computed just now."""
    meter: Meter | None = getattr(_LOCAL, "meter", None)
    if meter is None:
        return
    meter.used |= {part, *part.uses}
    if wall is None:
        meter.found |= {part, *part.uses} - meter.made
    else:
        meter.inside += wall
        new = {part} | {used for used in part.uses if used not in meter.found}
        meter.made |= new


class Meter:
    """Measures what runs inside `with`: peak memory, and shared parts used.

    Attributes:
        inside: Seconds spent on parts computed inside.
        used: Parts used, those that other parts used included.
        made: Parts computed inside.
        found: Parts that were done already.
    """

    def __init__(self) -> None:
        self.inside = 0.0
        self.used: set[_Part] = set()
        self.made: set[_Part] = set()
        self.found: set[_Part] = set()
        self._peak = self._start = float("nan")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._outer: Meter | None = None

    def __enter__(self) -> Meter:
        """Start measuring."""
        self._outer = getattr(_LOCAL, "meter", None)
        _LOCAL.meter = self
        self._start = self._peak = _resident_mb()
        if self._start == self._start:  # not NaN
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop measuring."""
        _LOCAL.meter = self._outer
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._peak = max(self._peak, _resident_mb())
        if self._outer is not None:
            # What a part found done, its user found done too.
            self._outer.found |= self.found - self._outer.made

    @property
    def borrowed_seconds(self) -> float:
        """Seconds that earlier calls spent on parts used here."""
        return sum(part.seconds for part in self.found)

    @property
    def memory_mb(self) -> float:
        """Growth of resident memory at its peak, MiB, here or when a part was computed."""
        own = max(0.0, self._peak - self._start)
        if own != own:
            return own
        return max([own, *(part.memory_mb for part in self.found)])

    def _watch(self) -> None:
        while not self._stop.wait(_INTERVAL):
            self._peak = max(self._peak, _resident_mb())


def _resident_mb() -> float:
    """Process's resident memory in MiB, NaN where the platform does not tell."""
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
