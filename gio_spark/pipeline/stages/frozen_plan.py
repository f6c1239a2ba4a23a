"""Models and plan of a finished run as arrays and JSON, which judge any row by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark import embed, explode
from gio_spark.engine import decode_vectors
from gio_spark.engine.arrow import joined
from gio_spark.engine.content_hash import content_hashes
from gio_spark.errors import InputError
from gio_spark.explode.rank_keys import (
    HASH_UNIT,
    KEY_LIMIT,
    RATIO_UNIT,
    REQUIRED_KEY,
    TAKE_NONE,
    TIE_ALL,
    passes_threshold,
    rank_keys,
)
from gio_spark.explode.row_filter import rank_salt, tie_salt
from gio_spark.kernels import Codebook, TwoLevelCodebook, search_nearest
from gio_spark.kernels.xxhash64 import hash53_of_texts
from gio_spark.pipeline.constraints.score_bias import bias_values
from gio_spark.pipeline.run_records import Facts, ScoreBias
from gio_spark.pipeline.stages.frozen_models import check_embedder
from gio_spark.quantize.kmeans_pass import unit_rows
from gio_spark.registry import load_modules
from gio_spark.settings.load import build
from gio_spark.settings.redact import redacted_settings

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from gio_spark.embed import Embedder
    from gio_spark.settings.columns import Columns
    from gio_spark.settings.run import RunSettings

    IntArray = NDArray[np.int64]

Arrays = dict[str, np.ndarray]

SCORED_SCHEMA = (
    "gio_id string, gio_cluster int, gio_distance float, gio_log_ratio float, gio_score double, "
    "gio_threshold double, gio_keep boolean, gio_run string"
)
CONFIGURATION, FACTS, ARRAYS = "configuration.json", "plan.json", "arrays.npz"
_FORMAT = 1


class FrozenFacts(Facts):
    """Facts of a frozen plan beside its arrays.

    Attributes:
        format: Of the files.
        run: Run of the models.
        refresh: Number of the refresh whose plan it is, 0 for the run's own.
        plan: Fingerprint of the plan.
        embedder: Name and revision.
        score_biases: Metrics that rows are ranked towards.
        sources: Sources that thresholds are for; empty where they are for whole clusters.
    """

    format: int = _FORMAT
    run: str
    refresh: int
    plan: str
    embedder: tuple[str, str]
    score_biases: tuple[ScoreBias, ...] = ()
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class FrozenPlan:
    """Models and plan of a run; workers, and registered models, judge rows by it.

    Attributes:
        facts: Facts beside the arrays.
        settings: Settings of the run.
        embedder: Embedder, fitted where it needs a fit.
        arrays: centroids (K, d), for the two-level index also coarse and cells; threshold and
            tie (K, S) for S sources, or S = 1; required (2, R), the hashes of rows that are
            always taken; those of the density ratio, as `ratio.NAME`.
    """

    facts: FrozenFacts
    settings: RunSettings
    embedder: Embedder
    arrays: Arrays = field(repr=False)

    @property
    def salts(self) -> tuple[str, ...]:
        """Salts of the hashes of ids that `decide` takes."""
        seed = self.settings.seed
        ratio = () if self.ratio is None else (self.ratio.salt,)
        return (rank_salt(seed), tie_salt(seed), *ratio)

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns that `decide` reads beside `id`."""
        text: tuple[str | None, ...] = ()
        if self.ratio is not None and self.ratio.kind in ("text", "pairs"):
            text = (self.embedder.columns.text, self.embedder.columns.output)
        return tuple(dict.fromkeys((*embed.read_columns(self.embedder), *filter(None, text))))

    @property
    def frame_columns(self) -> tuple[str, ...]:
        """Columns that `score_frame` reads."""
        own_id = self.embedder.columns.id
        return tuple(dict.fromkeys((*([] if own_id is None else [own_id]), *self.reads)))

    @cached_property
    def ratio(self) -> explode.RatioModel | None:
        """Density ratio; None where the run has none."""
        arrays = _below("ratio", self.arrays)
        return explode.RatioModel.from_arrays(arrays) if arrays else None

    @cached_property
    def _codebook(self) -> Codebook | TwoLevelCodebook:
        arrays = self.arrays
        if "coarse" not in arrays:
            return Codebook(arrays["centroids"])
        probes = self.settings.quantize.probes
        return TwoLevelCodebook(arrays["centroids"], arrays["coarse"], arrays["cells"], probes)

    def decide(self, rows: pa.Table, hashes: IntArray) -> pa.Table:
        """Cluster, score, threshold and decision of each row, with the columns of `SCORED_SCHEMA`.

        Args:
            rows: n rows: `id` and the columns of `reads`.
            hashes: 53-bit hashes of the ids under the `salts`, int64 (2 or 3, n).
        """
        directions = self.settings.quantize.spherical
        embedded = embed.embed_rows(rows, self.embedder, directions=directions)
        usable = np.flatnonzero(np.asarray(embedded["reason"].is_null()))
        place = np.full(rows.num_rows, -1)
        place[usable] = np.arange(usable.size)
        decided = self._decide_usable(
            rows.take(pa.array(usable)), embedded.take(pa.array(usable)), hashes[:, usable]
        )
        spread = decided.take(pa.array(place, mask=place < 0))
        columns = {name: spread[name] for name in spread.column_names}
        columns["gio_keep"] = pc.fill_null(columns["gio_keep"], False)
        run = pa.array([self.facts.run] * rows.num_rows, pa.string())
        return pa.table({"gio_id": embedded["id"], **columns, "gio_run": run})

    def score_frame(self, frame: pd.DataFrame) -> pd.DataFrame:
        """`decide` for a pandas frame with the configured columns; no engine is needed.

        Raises:
            InputError: A column is missing, an id is null or no text or integer, or a text is made
                of several columns, which takes an engine.
        """
        columns = self.embedder.columns
        rows = pa.Table.from_pandas(frame, preserve_index=False)
        missing = [name for name in self.reads if name not in rows.column_names]
        if missing:
            raise InputError(
                f"Columns {missing} are not among those of the frame, {rows.column_names}. A text "
                "that is rendered from other columns is scored by `gio-spark score`."
            )
        if columns.id is None:
            ids = content_hashes([rows[name] for name in columns.content()])
        else:
            ids = _text_ids(rows, columns.id)
        others = [name for name in self.reads if name != "id"]
        rows = rows.select(others).append_column("id", ids)
        return self.decide(rows, hash53_of_texts(ids.to_pylist(), self.salts)).to_pandas()

    def _decide_usable(self, rows: pa.Table, embedded: pa.Table, hashes: IntArray) -> pa.Table:
        """Columns of the decision about rows that have a vector."""
        settings = self.settings
        vectors = decode_vectors(embedded["vector"], self.arrays["centroids"].shape[1])
        directed = unit_rows(vectors) if settings.quantize.spherical else vectors
        cluster, distance = search_nearest(directed, self._codebook)
        ratio = None if self.ratio is None else self._log_ratio(rows, embedded, hashes[2])
        biases = self.facts.score_biases
        bias = bias_values(biases, _bias_columns(embedded, distance)) if biases else None
        rule = settings.explode.within_cluster
        keys = rank_keys(
            rule, hashes[0], ratio, temperature=settings.explode.temperature, score_bias=bias
        )
        required = self.arrays["required"]
        if required.size:
            pairs = set(zip(*required.tolist(), strict=True))
            is_required = [pair in pairs for pair in zip(*hashes[:2].tolist(), strict=True)]
            keys = np.where(is_required, REQUIRED_KEY, keys)
        threshold, tie = self._thresholds(cluster, embedded)
        unit = RATIO_UNIT if rule == "density_ratio" or biases else HASH_UNIT
        return pa.table(
            {
                "gio_cluster": pa.array(cluster, pa.int32()),
                "gio_distance": pa.array(distance, pa.float32()),
                "gio_log_ratio": pa.nulls(len(keys), pa.float32()) if ratio is None else ratio,
                "gio_score": _readable(keys, unit),
                "gio_threshold": _readable(threshold, unit),
                "gio_keep": passes_threshold(keys, hashes[1], threshold, tie),
            }
        )

    def _log_ratio(
        self, rows: pa.Table, embedded: pa.Table, hashes: IntArray
    ) -> NDArray[np.float32]:
        """Log density ratios; 0 where a row cannot be scored, as in a run."""
        assert self.ratio is not None  # noqa: S101 - the caller has looked
        columns = self.embedder.columns
        if self.ratio.kind not in ("text", "pairs"):
            content = joined(embedded["vector"])
        else:
            content = joined(rows[str(columns.text)])
            if self.ratio.kind == "pairs":
                output = joined(rows[str(columns.output)])
                absent = pc.or_(content.is_null(), output.is_null())
                content = pa.StructArray.from_arrays(
                    [content, output], names=["text", "output"], mask=absent
                )
        return np.nan_to_num(self.ratio.log_ratio(content, hashes), nan=0.0)

    def _thresholds(self, cluster: NDArray[Any], embedded: pa.Table) -> tuple[IntArray, IntArray]:
        """Threshold and smallest tie in force for each row."""
        threshold, tie = self.arrays["threshold"], self.arrays["tie"]
        if not self.facts.sources:
            return threshold[cluster, 0], tie[cluster, 0]
        named = pc.fill_null(joined(embedded["source"]), "")
        known = pc.index_in(named, pa.array(self.facts.sources, pa.string()))
        column = pc.fill_null(known, -1).to_numpy(zero_copy_only=False)
        # A source that a cluster lacked when the plan was made has no rows to take there.
        return (
            np.where(column < 0, TAKE_NONE, threshold[cluster, column]),
            np.where(column < 0, TIE_ALL, tie[cluster, column]),
        )

    def save(self, folder: Path) -> None:
        """Write the files of the plan: the configuration without secrets, facts and arrays."""
        folder.mkdir(parents=True)
        configuration = redacted_settings(self.settings.model_dump(mode="json"))
        (folder / CONFIGURATION).write_text(json.dumps(configuration, indent=2), encoding="utf-8")
        (folder / FACTS).write_text(json.dumps(self.facts.plain(), indent=2), encoding="utf-8")
        np.savez(folder / ARRAYS, **self.all_arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, folder: Path) -> FrozenPlan:
        """Plan of the files that `save` has written.

        Raises:
            InputError: They are not there, have another format, or this process would embed
                otherwise.
        """
        try:
            facts = FrozenFacts.model_validate_json((folder / FACTS).read_text(encoding="utf-8"))
            data = json.loads((folder / CONFIGURATION).read_text(encoding="utf-8"))
            with np.load(folder / ARRAYS, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except (OSError, ValueError) as error:
            raise InputError(f"{folder} is no model of a run of gio-spark: {error}") from error
        if facts.format != _FORMAT:
            raise InputError(
                f"{folder} has format {facts.format}, this version reads {_FORMAT}: register the "
                "model again by a run of this version."
            )
        settings = build(data, where=str(folder / CONFIGURATION))
        load_modules(settings.modules)
        embedder = embed.make_embedder(settings.embed, settings.pool_columns())
        check_embedder(embedder, facts.embedder)
        return cls(facts, settings, embedder, {}).with_arrays(arrays)

    def for_columns(self, columns: Columns) -> FrozenPlan:
        """Plan for rows whose columns have other names."""
        return replace(self, embedder=self.embedder.with_columns(columns))

    @property
    def all_arrays(self) -> Arrays:
        """Arrays with those of the embedder, as `embedder.NAME`."""
        fitted = {f"embedder.{name}": array for name, array in self.embedder.state.items()}
        return {**self.arrays, **fitted}

    def with_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> FrozenPlan:
        """Plan with the arrays of `all_arrays`, or without any."""
        embedder = self.embedder.with_state(_below("embedder", arrays))
        own = {name: a for name, a in arrays.items() if not name.startswith("embedder.")}
        return replace(self, embedder=embedder, arrays=own)


def _below(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Arrays whose names begin with a prefix and a dot, without it."""
    start = f"{prefix}."
    return {n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)}


def _bias_columns(embedded: pa.Table, distance: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Columns that `bias_values` reads."""
    columns = {
        name: joined(embedded[name]).cast(pa.float64()).to_numpy(zero_copy_only=False)
        for name in ("tokens", "quality")
    }
    for name in ("event_time", "ingest_time"):
        micros = joined(embedded[name]).cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
        columns[name] = micros.cast(pa.float64()).to_numpy(zero_copy_only=False)
    source = pc.fill_null(joined(embedded["source"]), "")
    columns["source"] = source.to_numpy(zero_copy_only=False)
    return {**columns, "distance": distance.astype(np.float64)}


def _readable(keys: IntArray, unit: float) -> pa.Array:
    """Keys as numbers that can be read; null where a key stands for all rows or for none."""
    endless = np.abs(keys.astype(np.float64)) >= float(KEY_LIMIT)
    return pa.array(keys / unit, mask=endless)


def _is_id(kind: pa.DataType) -> bool:
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return pa.types.is_integer(kind) or any(is_kind(kind) for is_kind in texts)


def _text_ids(rows: pa.Table, name: str) -> pa.Array:
    """Column of ids as texts."""
    if name not in rows.column_names:
        raise InputError(f"Column {name!r} of the ids is not among {rows.column_names}.")
    ids = joined(rows[name])
    kind = ids.type
    if ids.null_count or not _is_id(kind):
        raise InputError(
            f"Column {name!r} holds {kind} with {ids.null_count:,} nulls: ids are texts or "
            "integers."
        )
    return ids.cast(pa.string())
