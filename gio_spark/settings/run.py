"""The settings of a whole run: one model for YAML, Python and the command line."""

from __future__ import annotations

import re
import warnings
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from gio_spark.errors import ConfigError
from gio_spark.settings.base import StageSettings
from gio_spark.settings.budget import Budget, parse_budget
from gio_spark.settings.columns import Columns
from gio_spark.settings.embed import EmbedSettings
from gio_spark.settings.evaluate import EvaluateSettings
from gio_spark.settings.explode import ExplodeSettings
from gio_spark.settings.gime import GimeSettings
from gio_spark.settings.inputs import InputSettings, Verify
from gio_spark.settings.quantize import QuantizeSettings
from gio_spark.settings.refresh import RefreshSettings
from gio_spark.settings.select import SelectSettings
from gio_spark.settings.strategy_settings import DECIDED, STRATEGIES
from gio_spark.settings.tracking import TrackingSettings

# Short names for the settings that people change first -> where they live.
SHORTHANDS: dict[str, tuple[str, str]] = {
    "embedder": ("embed", "name"),
    "clusters": ("quantize", "clusters"),
    "objective": ("select", "objective"),
    "within_cluster": ("explode", "within_cluster"),
}

# Earlier names of settings -> where they live now.
RENAMED: dict[str, str] = {
    "gime.modules": "modules",
    "evaluate.modules": "modules",
    "quantize.neighbours": "quantize.neighbors",
    "explode.neighbours": "explode.neighbors",
    "explode.regularisation": "explode.regularization",
}
# Setting -> its earlier values -> what they are called now.
RENAMED_VALUES: dict[str, dict[str, str]] = {"publish.on_drift": {"tell": "warn"}}

PUBLISHED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class InputsSettings(StageSettings):
    """Settings of every input.

    Files are pinned when a run starts and checked again once they have been read. Their list holds
    what tells the content of each: on file systems its length, modification time and change time,
    which nobody who writes a file can set back; on object stores its length and the store's ETag or
    checksum, or its time where there is none. A file that was copied, restored, renamed or given
    other permissions has another change time: it counts as another input, though its rows are the
    same. Where that happens, or where a mounted store makes up the times, `verify: content` goes by
    a hash of all bytes: every file is read once more for each check, and equal bytes at the same
    path are the same input. Delta tables are pinned by their id and version in either case.
    """

    verify: Verify = Field(
        "listing",
        description=(
            "Method of pinning and checking the files of every input that does not set its own: "
            "listing or content."
        ),
    )


class QuarantineSettings(StageSettings):
    """Limit of unusable rows."""

    max_share: float = Field(
        0.2, ge=0, le=1, description="Share of unusable rows above which a run stops."
    )


class ReportSettings(StageSettings):
    """Content of the report."""

    title: str | None = Field(None, description="Title of the report.")
    examples: int = Field(
        4,
        ge=0,
        le=20,
        description="Examples per cluster of selected rows and of rows not selected.",
    )
    sample: int = Field(
        1500, ge=50, le=10_000, description="Rows per dataset in the two-dimensional plot."
    )
    show_content: bool = Field(
        True, description="Clipped row content as examples; false: no content in the report."
    )
    plots: bool = Field(
        True,
        description="Plots, in the page and as PNG files; false: tables alone, a second less.",
    )


class PublishSettings(StageSettings):
    """Publication of the selection of a run or a refresh under its name."""

    automatic: bool = Field(
        True,
        description=(
            "Publication of a selection that passed its audit; false: only by `gio-spark publish "
            "RUN`."
        ),
    )
    on_drift: Literal["warn", "hold"] = Field(
        "hold",
        description=(
            "Reaction of a refresh to metrics outside the range of earlier refreshes: warn, or "
            "hold the selection back (exit code 4)."
        ),
    )
    copy_rows: bool = Field(
        False,
        description=(
            "Copy of each published selection in the table published_NAME, for readers that "
            "cannot follow the table of publishes."
        ),
    )


class RetentionSettings(StageSettings):
    """Retention of rows that can be computed again, and of replaced selections."""

    runs: int = Field(
        3,
        ge=1,
        description=(
            "Newest finished runs of each name whose embeddings, assignments and scores are "
            "retained, besides those of a current or pinned publish."
        ),
    )
    publishes: int = Field(
        10,
        ge=1,
        description="Newest publishes of each name whose rows are retained, besides pinned ones.",
    )
    hours: float = Field(
        168.0,
        ge=0,
        description=(
            "Age from which files that no table refers to, and rows of runs that never finished, "
            "are deleted."
        ),
    )


class ConcurrencySettings(StageSettings):
    """Behavior of a run at a stage that another run is computing."""

    wait_minutes: float = Field(
        60.0,
        ge=0,
        description="Minutes to wait for a stage that another run computes; 0: error at once.",
    )
    takeover_hours: float = Field(
        6.0,
        gt=0,
        description=(
            "Age from which the claim of a process on another host expires; one of this host "
            "counts as long as the process runs."
        ),
    )


class RunSettings(StageSettings):
    """All settings of `gio-spark run`."""

    name: str | None = Field(
        None,
        description=(
            "Name of the published selection; none: that of the configuration file, or 'selection'."
        ),
    )
    pool: InputSettings = Field(description="Rows to select from.")
    target: tuple[InputSettings, ...] = Field(
        description="Rows that the selection is to resemble: one input, or several with shares.",
        min_length=1,
    )
    held_out: tuple[InputSettings, ...] = Field(
        (), description="Held-out sets (evaluation data): pool rows that overlap are quarantined."
    )
    inputs: InputsSettings = Field(
        default_factory=lambda: InputsSettings(), description="Settings of every input."
    )
    modules: tuple[str, ...] = Field(
        (),
        description=(
            "Python modules to import first, on driver and workers: those that register your own "
            "embedders, objectives, metric profiles, methods and scorers by gio_spark.register."
        ),
    )
    budget: int | float | str = Field(
        0.1,
        description=(
            "Size of the selection: rows (10000, '10k rows'), a share (0.1, '10 %'; 1.0 or all is "
            "the whole pool), tokens ('200M tokens'), auto."
        ),
    )
    workspace: str = Field(
        "gio-workspace", description="Folder, or catalog.schema, of all tables of a run."
    )
    engine: Literal["auto", "embedded", "spark", "cluster"] = Field(
        "auto", description="Engine: auto, embedded (Sail, no Java), spark (local JVM) or cluster."
    )
    seed: int = Field(0, ge=0, description="Seed of all random draws.")
    chunk_rows: int = Field(
        5_000_000,
        ge=1,
        description=(
            "Rows above which embeddings, assignments and scores are committed in chunks (at most "
            "16), so that a crash repeats at most one chunk; the selection stays the same."
        ),
    )
    columns: Columns = Field(default_factory=lambda: Columns(), description="Roles of the columns.")
    embed: EmbedSettings = Field(
        default_factory=lambda: EmbedSettings(), description="Embedding of rows as vectors."
    )
    quantize: QuantizeSettings = Field(
        default_factory=lambda: QuantizeSettings(), description="Clustering of the vectors."
    )
    select: SelectSettings = Field(
        default_factory=lambda: SelectSettings(), description="Rows to take from each cluster."
    )
    explode: ExplodeSettings = Field(
        default_factory=lambda: ExplodeSettings(),
        description="Choice of the rows inside a cluster.",
    )
    gime: GimeSettings = Field(
        default_factory=lambda: GimeSettings(), description="Information metrics."
    )
    evaluate: EvaluateSettings = Field(
        default_factory=lambda: EvaluateSettings(),
        description="Comparison of selection methods by `gio-spark evaluate`.",
    )
    publish: PublishSettings = Field(
        default_factory=lambda: PublishSettings(),
        description="Publication of selections.",
    )
    refresh: RefreshSettings = Field(
        default_factory=lambda: RefreshSettings(),
        description="Update of a selection after changes of the pool.",
    )
    retention: RetentionSettings = Field(
        default_factory=lambda: RetentionSettings(), description="Retention of rows and selections."
    )
    concurrency: ConcurrencySettings = Field(
        default_factory=lambda: ConcurrencySettings(),
        description="Stages that another run is computing at the same time.",
    )
    quarantine: QuarantineSettings = Field(
        default_factory=lambda: QuarantineSettings(), description="Unusable rows."
    )
    report: ReportSettings = Field(
        default_factory=lambda: ReportSettings(), description="The report."
    )
    tracking: TrackingSettings = Field(
        default_factory=lambda: TrackingSettings(), description="Tracking of runs (MLflow)."
    )

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = _with_present_names(dict(data))
        for short, (stage, field) in SHORTHANDS.items():
            if short not in data:
                continue
            value = data.pop(short)
            block = dict(data.get(stage) or {})
            if field in block and block[field] != value:
                raise ConfigError(
                    f"'{short}' ({value!r}) and '{stage}.{field}' ({block[field]!r}) are the same "
                    "setting with two values; keep one of them."
                )
            data[stage] = {**block, **(value if isinstance(value, dict) else {field: value})}
        data = _with_named_strategy(data)
        for key in ("pool", "target", "held_out"):
            if isinstance(data.get(key), str | dict):
                data[key] = _as_input(data[key]) if key == "pool" else [_as_input(data[key])]
            elif isinstance(data.get(key), list | tuple):
                data[key] = [_as_input(item) for item in data[key]]
        if _verify_of(data.get("inputs")) == "content":
            for key in ("pool", "target", "held_out"):
                dataset = data.get(key)
                if isinstance(dataset, list):
                    data[key] = [_by_content(item) for item in dataset]
                elif dataset is not None:
                    data[key] = _by_content(dataset)
        return data

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str | None) -> str | None:
        if value is not None and not PUBLISHED_NAME.fullmatch(value):
            raise ValueError(
                f"{value!r} cannot be the name of a selection: letters, digits, '_', '-' and '.', "
                "beginning with a letter or a digit, at most 100"
            )
        return value

    @field_validator("budget", mode="before")
    @classmethod
    def _check_budget(cls, value: Any) -> Any:
        budget = parse_budget(value)
        if not isinstance(value, str) or budget.unit in ("tokens", "auto"):
            return value
        # One budget, however it was written, is one run.
        return int(budget.amount) if budget.unit == "rows" else budget.amount

    @property
    def sensitivity_budget(self) -> Budget:
        """Budget of the sensitivity runs: budgets of about the same size share them."""
        return parse_budget(self.budget).nearest_power()

    def published_name(self) -> str:
        """Name under which the selection is published."""
        return self.name or "selection"

    def datasets(self) -> dict[str, InputSettings]:
        """Pool, targets and held-out sets under their names in tables and messages."""
        several = len(self.target) > 1
        targets = {
            f"target-{i + 1}" if several else "target": one for i, one in enumerate(self.target)
        }
        held_out = {f"held-out-{i + 1}": one for i, one in enumerate(self.held_out)}
        return {"pool": self.pool, **targets, **held_out}

    def with_strategy(self, name: str) -> RunSettings:
        """Settings that carry out a strategy (`STRATEGIES`).

        Example:
            >>> settings = RunSettings(pool="pool", target="target", select={"strategy": "auto"})
            >>> settings.with_strategy("kl_hash").explode.within_cluster
            'exact_count'
        """
        settings = self
        for path in DECIDED:
            section, field = path.split(".")
            block = getattr(settings, section)
            default = type(block).model_fields[field].default
            block = block.model_copy(update={field: STRATEGIES[name].get(path, default)})
            settings = settings.model_copy(update={section: block})
        return settings

    def pool_columns(self) -> Columns:
        """Return the roles of the pool's columns."""
        return self.pool.columns or self.columns

    def target_columns(self, index: int) -> Columns:
        """Return the roles of a target's columns."""
        return self.target[index].columns or self.columns


def _with_present_names(data: dict[str, Any]) -> dict[str, Any]:
    """Settings with earlier names and values replaced by the present ones, a warning for each.

    Raises:
        ConfigError: A setting stands under both names with two values.
    """
    for earlier, present in RENAMED.items():
        value, remaining = _take(data, earlier.split("."))
        if value is None:
            continue
        warnings.warn(f"The setting {earlier} is called {present} now.", FutureWarning, 2)
        present_value, remaining = _take(remaining, present.split("."))
        if present_value is not None and present_value != value:
            raise ConfigError(
                f"{earlier!r} ({value!r}) and {present!r} ({present_value!r}) are the same setting "
                "with two values; keep one of them."
            )
        data = _put(remaining, present.split("."), value)
    for name, values in RENAMED_VALUES.items():
        value, remaining = _take(data, name.split("."))
        present_value = values.get(value) if isinstance(value, str) else None
        if present_value is not None:
            warnings.warn(
                f"The value {value!r} of {name} is called {present_value!r} now.", FutureWarning, 2
            )
            data = _put(remaining, name.split("."), present_value)
    return data


def _take(data: dict[str, Any], path: list[str]) -> tuple[Any, dict[str, Any]]:
    """Value at a path (None where there is none), and the data without it."""
    block = data.get(path[0])
    if len(path) == 1:
        return block, {k: v for k, v in data.items() if k != path[0]}
    if not isinstance(block, dict):
        return None, data
    value, remaining = _take(block, path[1:])
    return value, {**data, path[0]: remaining}


def _put(data: dict[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    if len(path) == 1:
        return {**data, path[0]: value}
    return {**data, path[0]: _put(dict(data.get(path[0]) or {}), path[1:], value)}


def _with_named_strategy(data: dict[str, Any]) -> dict[str, Any]:
    """Settings of a named strategy in place of its name.

    Raises:
        ConfigError: There is no such strategy, or one of its settings has another value.
    """
    name, remaining = _take(data, ["select", "strategy"])
    if not isinstance(name, str) or name in ("default", "auto"):
        return data
    if name not in STRATEGIES:
        raise ConfigError(
            f"select.strategy: there is no strategy {name!r}; use default, auto, or one of "
            f"{', '.join(STRATEGIES)}."
        )
    for path, value in STRATEGIES[name].items():
        present, remaining = _take(remaining, path.split("."))
        if present is not None and present != value:
            raise ConfigError(
                f"select.strategy {name!r} sets {path} to {value!r}, but it is {present!r}: leave "
                "one of them out."
            )
        remaining = _put(remaining, path.split("."), value)
    return remaining


def _as_input(value: Any) -> Any:
    return {"location": value} if isinstance(value, str) else value


def _verify_of(inputs: Any) -> Any:
    return inputs.get("verify") if isinstance(inputs, dict) else getattr(inputs, "verify", None)


def _by_content(value: Any) -> Any:
    """Return an input that is pinned by content, unless it says otherwise itself."""
    if isinstance(value, dict):
        return {"verify": "content", **value}
    if isinstance(value, InputSettings) and "verify" not in value.model_fields_set:
        return value.model_copy(update={"verify": "content"})
    return value
