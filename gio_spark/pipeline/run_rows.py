"""Rows that the metrics of a run read: assignments, vectors and own columns of each dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark import gime
from gio_spark.engine import bounded, hash_share
from gio_spark.errors import InputError
from gio_spark.pipeline.kmeans_checkpoints import fitted_state
from gio_spark.tables import Input, Workspace, quoted_column

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    from gio_spark.pipeline.refresh_records import RefreshKeys
    from gio_spark.pipeline.run_records import RunSummary
    from gio_spark.settings.run import RunSettings

MAX_METRIC_ROWS = 200_000


@dataclass(frozen=True)
class RunRows:
    """Stage tables of one run, by dataset.

    Attributes:
        workspace: Its tables.
        settings: Of the run.
        embeddings: Dataset -> fingerprint of its embeddings.
        assignments: Dataset -> fingerprint of its assignments.
        fit: Fingerprint of the codebook.
        inputs: Dataset -> its opened input, for profiles that read the user's own columns.
        source: Only the rows of this source, measured by its own profile; None: all rows.
    """

    workspace: Workspace
    settings: RunSettings
    embeddings: Mapping[str, str]
    assignments: Mapping[str, str]
    fit: str
    inputs: Mapping[str, Input] = field(default_factory=dict)
    source: str | None = None

    @classmethod
    def of_summary(
        cls,
        workspace: Workspace,
        settings: RunSettings,
        summary: RunSummary,
        refreshed: RefreshKeys | None = None,
    ) -> RunRows:
        """Rows of a finished run.

        Args:
            workspace: Its tables.
            settings: Of the run.
            summary: Of the run.
            refreshed: Keys of its pool's rows after a refresh.
        """
        gime.check_profiles(settings.gime, settings.pool_columns().source)
        keys = summary.keys
        embeddings, assignments = dict(keys.embeddings), dict(keys.assignments)
        if refreshed is not None:
            embeddings["pool"], assignments["pool"] = refreshed.embeddings, refreshed.assignments
        return cls(workspace, settings, embeddings, assignments, keys.fit)

    @cached_property
    def centroids(self) -> NDArray[np.float32]:
        """The codebook, (K, d)."""
        return fitted_state(self.workspace, self.fit).centroids

    @property
    def profile(self) -> gime.Profile:
        """The profile of the metrics."""
        gime_settings = self.settings.gime
        if self.source is None:
            return gime.get_profile(gime_settings.profile)
        return gime.get_profile(gime_settings.profiles[self.source])

    @property
    def vectors(self) -> bool:
        """Whether the profile reads vectors."""
        return "vector" in self.profile.roles

    @property
    def reads_user_columns(self) -> bool:
        """Whether any profile of the run reads the user's own columns."""
        used = self.settings.gime
        names = {used.profile, *used.profiles.values()}
        roles = {r for n in names for r in gime.get_profile(n).roles}
        return bool(used.columns) or any(role.endswith("*") for role in roles)

    def parts(self) -> list[RunRows]:
        """These rows and, for each source with a profile, the rows of the source."""
        return [self, *(replace(self, source=name) for name in self.settings.gime.profiles)]

    def named(self, metric: str) -> str:
        """Name of a metric of these rows: `source/metric` for those of a source."""
        return metric if self.source is None else f"{self.source}/{metric}"

    def rows(self, dataset: str, *, vectors: bool = False) -> DataFrame:
        """The assigned rows of a dataset, as the metrics read them.

        Args:
            dataset: pool, target, target-1, held-out-1, ...
            vectors: Also join each row's vector and content hash.
        """
        rows = self._assigned(dataset).drop("fingerprint")
        if vectors:
            embedded = rows_of(self.workspace, "embeddings", self.embeddings[dataset])
            embedded = embedded.where(F.col("reason").isNull())
            rows = rows.join(embedded.select("id", "vector", "content_hash"), "id", "inner")
        profile_columns = self._profile_columns(dataset)
        return rows if profile_columns is None else rows.join(profile_columns, "id", "left")

    def _assigned(self, dataset: str) -> DataFrame:
        rows = rows_of(self.workspace, "assignments", self.assignments[dataset])
        if self.source is None or not self._has_source_column(dataset):
            return rows
        return rows.where(F.coalesce("source", F.lit("")) == F.lit(self.source))

    def _has_source_column(self, dataset: str) -> bool:
        """Whether a dataset has a column of sources; one without is that of every source."""
        settings = self.settings.datasets()[dataset]
        if (settings.columns or self.settings.columns).source is None:
            return False
        if settings.columns is not None or dataset == "pool":
            return True
        # A target may lack the column that the common roles name: all its sources are null.
        rows = rows_of(self.workspace, "assignments", self.assignments[dataset])
        return rows.where(F.col("source").isNotNull()).limit(1).count() > 0

    def target_states(
        self, constants: gime.Constants, *, vectors: bool
    ) -> Mapping[str, gime.State] | None:
        """The states of the targets; None where they have no row of this source."""
        rows = self.targets(vectors=vectors)
        if self.source is not None and rows.limit(1).count() == 0:
            return None
        return gime.target_states(rows, self.profile, constants=constants)

    def targets(self, *, vectors: bool = False) -> DataFrame:
        """The rows of all targets."""
        targets = [n for n in self.assignments if n.startswith("target")]
        target = self.rows(targets[0], vectors=vectors)
        for name in targets[1:]:
            target = target.unionByName(self.rows(name, vectors=vectors))
        return target

    def _profile_columns(self, dataset: str) -> DataFrame | None:
        """The user's own columns that the profile reads, under the names of their roles."""
        source = self.inputs.get(dataset)
        if source is None:
            return None
        roles = self.profile.roles
        stems = {role[:-1] for role in roles if role.endswith("*")}
        named = {"numeric": source.columns.numeric, "categorical": source.columns.categorical}
        expressions = [
            F.col(quoted_column(column)).alias(f"{stem}:{column}")
            for stem, columns in named.items()
            for column in columns
            if stem in stems
        ]
        for role, column in self.settings.gime.columns.items():
            if role not in roles:
                continue
            if column not in source.own_columns:
                raise InputError(
                    f"gime.columns: {source.name} has no column {column!r} (role {role!r}); it has "
                    f"{', '.join(source.own_columns[:20])}."
                )
            expressions.append(F.col(quoted_column(column)).alias(role))
        return source.rows.select("id", *expressions) if expressions else None

    def constants(self, *, vectors: bool) -> gime.Constants:
        """The frozen constants of the metrics; the same whenever the run is the same."""
        rows = self.rows("pool", vectors=vectors)
        return gime.freeze(
            rows,
            self.profile,
            target=self.targets(vectors=True) if vectors else None,
            codebook=self.centroids if vectors else None,
            clusters=len(self.centroids),
            codebook_version=self.fit,
            settings=self.settings.gime,
        )

    def count_selected(self, ids: DataFrame) -> tuple[int, int]:
        """How many of these rows have one of the ids, and how many there are.

        Raises:
            InputError: The pool has no row of the source.
        """
        pool = self.rows("pool").select("id")
        pool_rows = int(pool.count())
        if pool_rows == 0 and self.source is not None:
            raise InputError(
                f"gime.profiles names the source {self.source!r}, but the pool has no row of it."
            )
        return int(pool.join(ids, "id", "left_semi").count()), pool_rows

    def selected_and_random(
        self, pool: DataFrame, ids: DataFrame, rows: int, pool_rows: int
    ) -> dict[str, DataFrame]:
        """The selected rows of a pool, and a random draw of about as many.

        Random rows are a share by hash: their exact number would take another pass over the pool
        (which hash is the n-th smallest is known only once n is), to remove a difference of one
        square root of n, no more than between two random draws.
        """
        share = rows / max(1, pool_rows)
        return {
            "selected": pool.join(ids, "id", "left_semi"),
            "random": pool.where(hash_share("id", share, f"metrics-random-{self.settings.seed}")),
        }

    def measure(
        self,
        frames: Mapping[str, DataFrame],
        *,
        constants: gime.Constants,
        target: Mapping[str, gime.State] | None,
        by: bool = True,
    ) -> pa.Table:
        """Metrics of named frames of the same columns.

        Args:
            frames: Group -> rows.
            constants: Frozen for rows of this kind.
            target: The target's states under them.
            by: Whether each group is also cut by the further columns of the settings.
        """
        parts = [
            df.select(*[F.col(quoted_column(c)) for c in df.columns], F.lit(name).alias("group"))
            for name, df in frames.items()
        ]
        every = reduce(lambda one, other: one.unionByName(other), parts)
        settings = self.settings.gime
        tables = []
        for groups in [["group"], *([["group", *settings.by]] if by and settings.by else [])]:
            values = gime.metrics(
                every, self.profile, by=groups, target=target, settings=settings,
                constants=constants,
            )  # fmt: skip
            tables.append(bounded(values, MAX_METRIC_ROWS, "metrics (use a coarser grouping)"))
        return self.under_names(pa.concat_tables(tables))

    def under_names(self, values: pa.Table) -> pa.Table:
        """Metric values with the metrics called `source/metric` where they are of a source."""
        at = values.schema.get_field_index("metric")
        names = [self.named(m) for m in values.column("metric").to_pylist()]
        return values.set_column(at, values.schema.field(at), pa.array(names, pa.string()))

    def with_inputs(self, inputs: Mapping[str, Input]) -> RunRows:
        """Copy with opened inputs."""
        return replace(self, inputs=dict(inputs))


def rows_of(ws: Workspace, table: str, key: str) -> DataFrame:
    """Rows of a stage of a finished run.

    Raises:
        InputError: Retention has taken them away.
    """
    if not ws.holds(table, key):
        raise InputError(
            f"{ws.place(table)} no longer holds the rows of this run (retention.runs says how "
            "many runs stay). Run `gio-spark run` again."
        )
    return ws.read(table, key)
