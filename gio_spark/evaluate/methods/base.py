"""Selection methods by name: register them, check what they need, run them, tell what they cost."""

from __future__ import annotations

import dataclasses
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gio_spark.errors import BudgetError, ConfigError, GioSparkError, InputError
from gio_spark.evaluate.methods.shared import Meter
from gio_spark.process import one_blas_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.evaluate.dataset import EvaluationDataset

#: What a method may raise that makes it a failed row of the table instead of ending the bake-off.
FAILURES = (
    GioSparkError,
    ArithmeticError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


class Chosen(NamedTuple):
    """What a method answers: its rows, and a remark for the reader where there is one."""

    rows: NDArray[np.int64]
    note: str = ""


Function = Callable[["EvaluationDataset", int, int], "Chosen | NDArray[np.int64]"]


@dataclass(frozen=True)
class Method:
    """A registered method.

    Attributes:
        name: Its name.
        function: (dataset, budget, seed) -> rows.
        needs: Fields of the dataset that must be there.
        summary: First line of the function's docstring.
        whole: Whether it takes all rows, whatever the budget.
        version: Number that is raised when its selections change, so that stored ones lapse.
    """

    name: str
    function: Function
    needs: tuple[str, ...]
    summary: str
    whole: bool = False
    version: int = 1

    def missing(self, dataset: EvaluationDataset) -> tuple[str, ...]:
        """Needed fields that the dataset lacks."""
        return tuple(name for name in self.needs if getattr(dataset, name, None) is None)


@dataclass(frozen=True, eq=False)
class Selection:
    """One method's rows with their cost.

    Attributes:
        rows: (budget,) int64 row indices, ascending, each once; empty where the method failed.
        seconds: Wall time, with that of shared work that an earlier call had done already.
        memory_mb: Growth of the process's resident memory at its peak, in MiB; NaN where the
            platform does not tell. Other threads of the process count too.
        problem: Why the method failed; empty where it did not.
        note: A remark of the method, such as what it did beyond the target's reach.
    """

    rows: NDArray[np.int64]
    seconds: float
    memory_mb: float
    problem: str = ""
    note: str = ""


_METHODS: dict[str, Method] = {}


def method(
    name: str, *, needs: tuple[str, ...] = (), whole: bool = False, version: int = 1
) -> Callable[[Function], Function]:
    """Register a function as the selection method `name`, for use as `@method("mine")`.

    The function gets (dataset, budget, seed) and returns int64 row indices, exactly `budget`
    different ones, or a `Chosen`. The dataset that it gets is sorted by hash, so a tie that goes to
    the lowest row goes by hash.

    Args:
        name: Its name; a second function under one name replaces the first.
        needs: Fields of `EvaluationDataset` that must not be None.
        whole: The method takes all rows and ignores the budget.
        version: Raise it when the method's selections change, so that stored ones lapse.

    Raises:
        ConfigError: A need is no field of `EvaluationDataset`.
    """
    from gio_spark.evaluate.dataset import EvaluationDataset

    fields = {field.name for field in dataclasses.fields(EvaluationDataset)}
    for need in needs:
        if need not in fields:
            raise ConfigError(
                f"The method {name!r} needs {need!r}, which no dataset has. "
                f"A dataset has: {', '.join(sorted(fields))}."
            )

    def keep(function: Function) -> Function:
        text = (function.__doc__ or "").strip()
        summary = text.split("\n")[0]
        _METHODS[name] = Method(name, function, tuple(needs), summary, whole, version)
        return function

    return keep


def methods(dataset: EvaluationDataset | None = None) -> list[str]:
    """Names of all methods in order of registration, or of those a dataset allows."""
    return [name for name, it in _METHODS.items() if dataset is None or not it.missing(dataset)]


def get(name: str) -> Method:
    """Method of a name.

    Raises:
        InputError: There is none.
    """
    if name not in _METHODS:
        raise InputError(
            f"No selection method is called {name!r}. Known: {', '.join(methods())}. Register your "
            "own with gio_spark.evaluate.methods.method."
        )
    return _METHODS[name]


def choose(name: str, dataset: EvaluationDataset, budget: int, seed: int = 0) -> Selection:
    """Select rows with a method, and measure what it costs.

    A method that raises or answers nonsense gives a Selection without rows that says why, so that
    one failure does not end a bake-off. What the caller got wrong is raised.

    Args:
        name: Name of the method.
        dataset: What it selects from.
        budget: Rows to select.
        seed: Seed of methods that draw.

    Raises:
        InputError: No method has that name, or the dataset lacks what it needs.
        BudgetError: The budget is below 1 or above the dataset's rows.
    """
    wanted = get(name)
    missing = wanted.missing(dataset)
    if missing:
        raise InputError(
            f"The method {name!r} needs {', '.join(missing)}, which the rows do not have: name "
            "the columns, or leave the method out."
        )
    if not 1 <= budget <= dataset.rows:
        raise BudgetError(
            f"The budget is {budget} rows; there are {dataset.rows}. Ask for 1 to {dataset.rows}.",
            largest=dataset.rows,
        )
    ordered, places = _by_hash(dataset)
    meter = Meter()
    began = time.perf_counter()
    note = problem = ""
    rows = np.zeros(0, dtype=np.int64)
    # One BLAS thread: costs compare, results do not depend on the number of cores, and cells run
    # side by side anyway (two threads on a busy machine took three times as long as one).
    with meter, one_blas_thread():
        try:
            answer = wanted.function(ordered, budget, seed)
            found, note = answer if isinstance(answer, Chosen) else (answer, "")
            rows = _checked(found, dataset.rows if wanted.whole else budget, dataset.rows)
        except FAILURES as error:
            problem = f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - began
    seconds += meter.borrowed_seconds
    if places is not None:
        rows = np.sort(places[rows])
    return Selection(rows, seconds, meter.memory_mb, problem, note)


def _checked(found: NDArray[np.int64], wanted: int, rows: int) -> NDArray[np.int64]:
    """Rows ascending.

    Raises:
        InputError: They are not `wanted` different rows of the dataset.
    """
    array = np.asarray(found)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"It returned {array.dtype} of shape {array.shape}, not row indices.")
    array = np.unique(array.astype(np.int64))
    if len(array) != wanted or len(found) != wanted:
        raise InputError(
            f"It returned {len(found)} rows, {len(array)} of them different; {wanted} were wanted."
        )
    if wanted and not 0 <= array[0] <= array[-1] < rows:
        raise InputError(f"It returned rows outside 0 to {rows - 1}.")
    return array


_ORDERED: weakref.WeakKeyDictionary[
    EvaluationDataset, tuple[EvaluationDataset, NDArray[np.int64] | None]
] = weakref.WeakKeyDictionary()
_ORDERED_LOCK = threading.Lock()


def _by_hash(dataset: EvaluationDataset) -> tuple[EvaluationDataset, NDArray[np.int64] | None]:
    """Dataset with its pool sorted by hash, and the place of each of its rows.

    The last bits of a matrix product depend on where a row stands; in one fixed order the
    selection cannot depend on the order in which rows arrived. A dataset that is sorted already
    (one from a hash sample is) is not copied.
    """
    hashes = dataset.hashes
    if len(hashes) < 2 or bool(np.all(hashes[:-1] <= hashes[1:])):
        return dataset, None
    with _ORDERED_LOCK:
        if dataset not in _ORDERED:
            places = np.argsort(hashes, kind="stable").astype(np.int64)
            _ORDERED[dataset] = (reordered(dataset, places), places)
        return _ORDERED[dataset]


#: Fields of a dataset with one entry for each row of the pool.
POOL_FIELDS = (
    "vectors", "hashes", "cluster", "texts", "sources", "tokens", "labels", "good", "features",
)  # fmt: skip


def reordered(dataset: EvaluationDataset, places: NDArray[np.int64]) -> EvaluationDataset:
    """Dataset with the pool's rows taken at `places`, everything else the same."""
    changed = {}
    for name in POOL_FIELDS:
        values = getattr(dataset, name)
        if values is not None:
            changed[name] = values.take(places) if name == "texts" else values[places]
    return dataclasses.replace(dataset, **changed)
