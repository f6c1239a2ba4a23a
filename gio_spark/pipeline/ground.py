"""What the metrics of a run read: assignments, vectors and own columns of each side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark.sql import functions as F

from gio_spark import gime
from gio_spark.pipeline.fits import fitted_state
from gio_spark.tables import Input, Workspace, quoted_column

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    from gio_spark.pipeline.clusters import Codebook
    from gio_spark.pipeline.context import Context
    from gio_spark.pipeline.vectors import Side
    from gio_spark.settings.run import RunSettings
    from gio_spark.tables import Record


@dataclass(frozen=True)
class Ground:
    """Stage tables of one run, by side.

    Attributes:
        workspace: Its tables.
        settings: Of the run.
        embeddings: Side -> fingerprints of its embeddings; several after refreshes.
        assignments: Side -> fingerprints of its assignments.
        fit: Fingerprint of the codebook.
        inputs: Side -> its opened input, for profiles that read the user's own columns.
        present: Ids of the pool as it is now, after refreshes; None: all that were assigned.
    """

    workspace: Workspace
    settings: RunSettings
    embeddings: Mapping[str, tuple[str, ...]]
    assignments: Mapping[str, tuple[str, ...]]
    fit: str
    inputs: Mapping[str, Input] = field(default_factory=dict)
    present: DataFrame | None = None

    @classmethod
    def of(cls, ctx: Context, sides: Mapping[str, Side], book: Codebook) -> Ground:
        """Return that of a run under way."""
        return cls(
            ctx.workspace,
            ctx.settings,
            {n: (s.key,) for n, s in sides.items()},
            {n: (k,) for n, k in book.assignments.items()},
            book.key,
            {n: s.source for n, s in sides.items()},
        )

    @classmethod
    def of_record(
        cls,
        workspace: Workspace,
        settings: RunSettings,
        record: Record,
        refreshes: tuple[str, ...],
        *,
        present: DataFrame | None = None,
    ) -> Ground:
        """Return that of a finished run, with the rows that refreshes brought to its pool."""
        keys = record.detail["keys"]

        def grown(found: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
            return {n: (k, *(refreshes if n == "pool" else ())) for n, k in found.items()}

        return cls(
            workspace,
            settings,
            grown(keys["embeddings"]),
            grown(keys["assignments"]),
            keys["fit"],
            present=present,
        )

    @cached_property
    def centroids(self) -> NDArray[np.float32]:
        """The codebook, (K, d)."""
        return fitted_state(self.workspace, self.fit).centroids

    @property
    def profile(self) -> gime.Profile:
        """The profile of the metrics."""
        return gime.get_profile(self.settings.gime.profile)

    @property
    def columns(self) -> Any:
        """Roles for the metrics: those of the tables here, never the user's own names."""
        return None

    def rows(
        self, side: str, *, vectors: bool = False, keep_fingerprint: bool = False
    ) -> DataFrame:
        """Return the assigned rows of a side, as the metrics read them.

        Args:
            side: pool, target, target-1, held-out-1, ...
            vectors: Also join each row's vector and content hash.
            keep_fingerprint: Keep the column that tells which stage or refresh assigned a row.
        """
        ws = self.workspace
        rows = self._assigned(side)
        if self.present is not None and side == "pool":
            rows = rows.join(self.present, "id", "left_semi")
        if not keep_fingerprint:
            rows = rows.drop("fingerprint")
        if vectors:
            found = ws.read_all("embeddings").where(
                F.col("fingerprint").isin(list(self.embeddings[side]))
            )
            found = found.where(F.col("reason").isNull()).select("id", "vector", "content_hash")
            rows = rows.join(found, "id", "inner")
        own = self._own(side)
        return rows if own is None else rows.join(own, "id", "left")

    def missing(self, *, keep_fingerprint: bool = False) -> DataFrame:
        """Return rows of the pool that were assigned and are gone."""
        rows = self._assigned("pool")
        if self.present is None:
            return rows.limit(0)
        gone = rows.join(self.present, "id", "left_anti")
        return gone if keep_fingerprint else gone.drop("fingerprint")

    def _assigned(self, side: str) -> DataFrame:
        keys = list(self.assignments[side])
        return self.workspace.read_all("assignments").where(F.col("fingerprint").isin(keys))

    def targets(self, *, vectors: bool = False) -> DataFrame:
        """Return the rows of all targets."""
        names = [n for n in self.assignments if n.startswith("target")]
        target = self.rows(names[0], vectors=vectors)
        for name in names[1:]:
            target = target.unionByName(self.rows(name, vectors=vectors))
        return target

    def _own(self, side: str) -> DataFrame | None:
        """Return the user's numeric and categorical columns under the names of their roles."""
        source = self.inputs.get(side)
        stems = {role[:-1] for role in self.profile.roles if role.endswith("*")}
        if source is None or not stems:
            return None
        named = {"numeric": source.columns.numeric, "categorical": source.columns.categorical}
        found = [
            F.col(quoted_column(column)).alias(f"{stem}:{column}")
            for stem, columns in named.items()
            for column in columns
            if stem in stems
        ]
        return source.rows.select("id", *found) if found else None

    def constants(self, *, vectors: bool) -> gime.Constants:
        """Return the frozen constants of the metrics; the same whenever the run is the same."""
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

    def with_inputs(self, inputs: Mapping[str, Input]) -> Ground:
        """Return the same with opened inputs."""
        return replace(self, inputs=dict(inputs))
