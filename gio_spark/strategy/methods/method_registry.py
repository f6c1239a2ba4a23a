"""Registry of selection methods: registration, required fields, execution and measured cost."""

from __future__ import annotations

import dataclasses
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gio_spark.errors import BudgetError, ConfigError, GioSparkError, InputError
from gio_spark.process import one_blas_thread
from gio_spark.registry import Registry
from gio_spark.strategy.methods.shared_work import Meter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.strategy.evaluation_dataset import EvaluationDataset

#: Exceptions of a method that give a failed row of the table instead of ending the bake-off.
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


class MethodResult(NamedTuple):
    """Rows that a method selects, with an optional note for the reader."""

    rows: NDArray[np.int64]
    note: str = ""


SelectionFunction = Callable[["EvaluationDataset", int, int], "MethodResult | NDArray[np.int64]"]


@dataclass(frozen=True)
class Method:
    """Registered selection method.

    Attributes:
        name: Name of the method.
        function: (dataset, budget, seed) -> rows.
        needs: Fields of the dataset that must not be None.
        summary: First line of the function's docstring.
        takes_all: Whether it selects all rows, whatever the budget.
        version: Number that is raised when its selections change, so that stored trials are
            computed again.
        weighted: Whether it takes a sample whose rows stand for different numbers of pool rows
            (`EvaluationDataset.weights`) and counts its budget in pool rows.
    """

    name: str
    function: SelectionFunction
    needs: tuple[str, ...]
    summary: str
    takes_all: bool = False
    version: int = 1
    weighted: bool = False

    def missing(self, dataset: EvaluationDataset) -> tuple[str, ...]:
        """Required fields that the dataset lacks."""
        return tuple(name for name in self.needs if getattr(dataset, name, None) is None)


@dataclass(frozen=True, eq=False)
class Selection:
    """Selected rows of a method with their cost.

    Attributes:
        rows: (budget,) int64 row indices, ascending, each once; empty if the method failed. With
            weights, rows that stand for about `budget` pool rows.
        seconds: Wall time, including that of shared work that an earlier call had done already.
        memory_mb: Growth of the process's resident memory at its peak, in MiB; NaN if the
            platform does not report it. Other threads of the process count too.
        problem: Reason of a failure; empty otherwise.
        note: Note of the method, such as how it filled a budget beyond the target's reach.
    """

    rows: NDArray[np.int64]
    seconds: float
    memory_mb: float
    problem: str = ""
    note: str = ""


METHODS: Registry[Method] = Registry("selection method")


def register_entry(
    name: str,
    function: SelectionFunction,
    *,
    needs: tuple[str, ...] = (),
    takes_all: bool = False,
    version: int = 1,
    weighted: bool = False,
) -> None:
    """Register a function as the selection method `name`; users call `gio_spark.register`.

    The function gets (dataset, budget, seed) and returns int64 row indices, exactly `budget`
    different ones, or a `MethodResult`. Its dataset is sorted by hash, so a tie that goes to the
    lowest row is decided by hash.

    Args:
        name: Name of the method.
        function: The function.
        needs: Fields of `EvaluationDataset` that must not be None.
        takes_all: Whether the method selects all rows and ignores the budget.
        version: Number to raise when the method's selections change, so that stored trials are
            computed again.
        weighted: Whether it takes a sample with weights and counts its budget in pool rows.

    Raises:
        ConfigError: The name is one of gio_spark's own, or a need is not a field of
            `EvaluationDataset`.
    """
    from gio_spark.strategy.evaluation_dataset import EvaluationDataset

    field_names = {field.name for field in dataclasses.fields(EvaluationDataset)}
    for field_name in needs:
        if field_name not in field_names:
            raise ConfigError(
                f"The method {name!r} needs {field_name!r}, which no dataset has. "
                f"A dataset has: {', '.join(sorted(field_names))}."
            )
    summary = (function.__doc__ or "").strip().split("\n")[0]
    entry = Method(name, function, tuple(needs), summary, takes_all, version, weighted)
    METHODS.add(name, entry, owner=getattr(function, "__module__", None))


def method(name: str, **options: Any) -> Callable[[SelectionFunction], SelectionFunction]:
    """Decorator of the methods of this package; for the options see `register_entry`."""

    def add(function: SelectionFunction) -> SelectionFunction:
        register_entry(name, function, **options)
        return function

    return add


def methods(dataset: EvaluationDataset | None = None) -> list[str]:
    """Names of all methods in order of registration, or of those that a dataset allows."""
    return [
        name
        for name, selection_method in METHODS.entries.items()
        if dataset is None or not selection_method.missing(dataset)
    ]


def registered_by_users() -> list[str]:
    """Names of the methods that `gio_spark.register` has added."""
    return list(METHODS.names(built_in=False))


def get(name: str) -> Method:
    """Method of a name.

    Raises:
        ConfigError: No method has this name.
    """
    return METHODS.get(name)


def run_method(name: str, dataset: EvaluationDataset, budget: int, seed: int = 0) -> Selection:
    """Selection of a method with its measured cost.

    A method that raises or returns invalid rows gives a Selection without rows and with the
    problem, so that one failure does not end a bake-off. Errors of the caller are raised.

    Args:
        name: Name of the method.
        dataset: Dataset that the method selects from.
        budget: Number of rows to select.
        seed: Seed of methods that draw.

    Raises:
        InputError: No method has that name, or the dataset lacks what it needs.
        BudgetError: The budget is below 1 or above the dataset's rows.
    """
    selection_method = get(name)
    missing = selection_method.missing(dataset)
    if missing:
        raise InputError(
            f"The method {name!r} needs {', '.join(missing)}, which the rows do not have: name "
            "the columns, or leave the method out."
        )
    if dataset.weights is not None and not selection_method.weighted:
        raise InputError(
            f"The method {name!r} does not take a sample whose rows have weights; register it with "
            "weighted=True if it does."
        )
    pool_rows = dataset.pool_rows
    if not 1 <= budget <= pool_rows:
        raise BudgetError(
            f"The budget is {budget} rows; there are {pool_rows}. Ask for 1 to {pool_rows}.",
            largest=pool_rows,
        )
    sorted_dataset, positions = _sort_by_hash(dataset)
    meter = Meter()
    started = time.perf_counter()
    note = problem = ""
    rows = np.zeros(0, dtype=np.int64)
    # One BLAS thread: costs are comparable, results do not depend on the number of cores, and
    # trials run in parallel anyway (two threads on a busy machine took three times as long as one).
    with meter, one_blas_thread():
        try:
            result = selection_method.function(sorted_dataset, budget, seed)
            answer_rows, note = result if isinstance(result, MethodResult) else (result, "")
            count = dataset.rows if selection_method.takes_all else budget
            if dataset.weights is not None:
                count = len(answer_rows)
            rows = _checked_rows(answer_rows, count, dataset.rows)
        except FAILURES as error:
            problem = f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - started
    seconds += meter.borrowed_seconds
    if positions is not None:
        rows = np.sort(positions[rows])
    return Selection(rows, seconds, meter.memory_mb, problem, note)


def _checked_rows(answer: NDArray[np.int64], count: int, rows: int) -> NDArray[np.int64]:
    """Rows in ascending order.

    Raises:
        InputError: The answer is not `count` different rows of the dataset.
    """
    array = np.asarray(answer)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"It returned {array.dtype} of shape {array.shape}, not row indices.")
    array = np.unique(array.astype(np.int64))
    if len(array) != count or len(answer) != count:
        raise InputError(
            f"It returned {len(answer)} rows, {len(array)} of them different; {count} were wanted."
        )
    if count and not 0 <= array[0] <= array[-1] < rows:
        raise InputError(f"It returned rows outside 0 to {rows - 1}.")
    return array


_SORTED_DATASETS: weakref.WeakKeyDictionary[
    EvaluationDataset, tuple[EvaluationDataset, NDArray[np.int64] | None]
] = weakref.WeakKeyDictionary()
_SORTED_LOCK = threading.Lock()


def _sort_by_hash(dataset: EvaluationDataset) -> tuple[EvaluationDataset, NDArray[np.int64] | None]:
    """Dataset with its pool sorted by hash, and the original position of each of its rows.

    The last bits of a matrix product depend on the position of a row; in one fixed order the
    selection does not depend on the order in which rows arrived. A dataset that is sorted already,
    as one from a hash sample is, is not copied; its positions are None.
    """
    hashes = dataset.hashes
    if len(hashes) < 2 or bool(np.all(hashes[:-1] <= hashes[1:])):
        return dataset, None
    with _SORTED_LOCK:
        if dataset not in _SORTED_DATASETS:
            positions = np.argsort(hashes, kind="stable").astype(np.int64)
            _SORTED_DATASETS[dataset] = (reordered(dataset, positions), positions)
        return _SORTED_DATASETS[dataset]


#: Fields of a dataset with one entry for each row of the pool.
POOL_FIELDS = (
    "vectors", "hashes", "cluster", "texts", "sources", "tokens", "labels", "good", "features",
    "groups", "weights",
)  # fmt: skip


def reordered(dataset: EvaluationDataset, positions: NDArray[np.int64]) -> EvaluationDataset:
    """Dataset with the pool rows at `positions`; all other fields stay the same."""
    fields = {}
    for name in POOL_FIELDS:
        values = getattr(dataset, name)
        if values is not None:
            fields[name] = values.take(positions) if name == "texts" else values[positions]
    return dataclasses.replace(dataset, **fields)
