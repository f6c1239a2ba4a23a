"""Registered names (embedders, objectives, methods and others), and modules that add some."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, TypeVar

from gio_spark.errors import ConfigError

Kind = Literal["embedder", "objective", "profile", "method", "scorer"]
T = TypeVar("T")
Value = TypeVar("Value")

# Imported on first use: the room that knows what an entry of a kind must be.
_ROOMS: dict[str, str] = {
    "embedder": "gio_spark.embed.registry",
    "objective": "gio_spark.gio.selection_problem",
    "profile": "gio_spark.gime.metric_profile",
    "method": "gio_spark.strategy.methods.method_registry",
    "scorer": "gio_spark.strategy.registered_scorers",
}


class Registry(Generic[T]):
    """Entries of one kind by name.

    Attributes:
        kind: What messages call an entry.
        entries: Name -> entry, in order of registration.
    """

    def __init__(self, kind: str) -> None:
        """Create an empty registry."""
        self.kind = kind
        self.entries: dict[str, T] = {}
        self._built_in: set[str] = set()

    def add(self, name: str, entry: T, *, owner: str | None) -> T:
        """Register an entry.

        A name that gio_spark uses itself stays its own. A name of the user's may be registered
        again, as where a notebook's cell is run a second time; the last entry counts.

        Args:
            name: Its name.
            entry: The entry.
            owner: Module that defines it.

        Raises:
            ConfigError: The name is one of gio_spark's own.
        """
        is_own = (owner or "").split(".")[0] == "gio_spark"
        if name in self._built_in and not is_own:
            raise ConfigError(
                f"The {self.kind} {name!r} is one of gio_spark's own; choose another name."
            )
        if is_own:
            self._built_in.add(name)
        self.entries[name] = entry
        return entry

    def get(self, name: str) -> T:
        """Entry of a name.

        Raises:
            ConfigError: There is none; the message lists the known ones.
        """
        if name not in self.entries:
            raise ConfigError(
                f"No {self.kind} is called {name!r}. Known: {', '.join(self.names())}. Your own is "
                "registered by gio_spark.register in a module that `modules` names."
            )
        return self.entries[name]

    def names(self, *, built_in: bool = True) -> tuple[str, ...]:
        """Names in order of registration, with or without those of gio_spark's own."""
        return tuple(name for name in self.entries if built_in or name not in self._built_in)


def register(kind: Kind, name: str, **options: Any) -> Callable[[Value], Value]:
    """Decorator that registers an embedder, objective, metric profile, method or scorer.

    Name the module that holds it in the setting `modules`, and then the entry where a built-in name
    would stand (`embed.name`, `select.objective`, `select.scorer`, `gime.profile`,
    `evaluate.methods`).

    Args:
        kind: "embedder" (a class derived from `gio_spark.embed.Embedder`), "objective" (a function
            of a `gio.SelectionProblem`), "profile" (a function without arguments that gives a
            `gime.Profile`), "method" (a function of dataset, budget and seed) or "scorer" (a
            function of an Arrow table of selected rows and a seed).
        name: The name. A name of gio_spark's own is refused; one of yours may be registered again.
        options: Of a method: `needs`, `takes_all`, `version`, `weighted`.

    Raises:
        ConfigError: The kind is unknown, the name is taken, or the entry is not of its kind.

    Example:
        >>> from gio_spark import gio
        >>> @register("objective", "doctest_plan")
        ... def plan(problem):
        ...     return gio.select("budgeted_kl", problem)
        >>> "doctest_plan" in gio.objectives()
        True
    """
    if kind not in _ROOMS:
        raise ConfigError(f"kind is {kind!r}; use one of {', '.join(map(repr, _ROOMS))}.")
    add: Callable[..., Any] = importlib.import_module(_ROOMS[kind]).register_entry

    def decorate(value: Value) -> Value:
        add(name, value, **options)
        return value

    return decorate


def load_modules(names: Sequence[str]) -> None:
    """Import the modules of the setting `modules`.

    Raises:
        ConfigError: One cannot be imported.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f"modules: cannot import {name!r} ({type(error).__name__}: {error}). Install it or "
                "put its folder on PYTHONPATH, here and on the workers."
            ) from error
