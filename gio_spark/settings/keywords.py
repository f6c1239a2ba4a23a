"""Keyword settings of `curate`, typed so that an editor can complete them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from typing_extensions import TypedDict

from gio_spark.settings.columns import Columns
from gio_spark.settings.embed import EmbedSettings
from gio_spark.settings.evaluate import EvaluateSettings
from gio_spark.settings.explode import ExplodeSettings, WithinCluster
from gio_spark.settings.gime import GimeSettings
from gio_spark.settings.quantize import QuantizeSettings
from gio_spark.settings.refresh import RefreshSettings
from gio_spark.settings.run import (
    ConcurrencySettings,
    InputsSettings,
    PublishSettings,
    QuarantineSettings,
    ReportSettings,
    RetentionSettings,
)
from gio_spark.settings.select import SelectSettings
from gio_spark.settings.tracking import TrackingSettings

Values = Mapping[str, Any]


class RunKeywords(TypedDict, total=False):
    """Settings of a run beside pool, target, budget and workspace; see `RunSettings`."""

    name: str | None
    held_out: Any
    inputs: InputsSettings | Values
    modules: Sequence[str]
    engine: Literal["auto", "embedded", "spark", "cluster"]
    seed: int
    chunk_rows: int
    columns: Columns | Values
    embed: EmbedSettings | Values
    quantize: QuantizeSettings | Values
    select: SelectSettings | Values
    explode: ExplodeSettings | Values
    gime: GimeSettings | Values
    evaluate: EvaluateSettings | Values
    publish: PublishSettings | Values
    refresh: RefreshSettings | Values
    retention: RetentionSettings | Values
    concurrency: ConcurrencySettings | Values
    quarantine: QuarantineSettings | Values
    report: ReportSettings | Values
    tracking: TrackingSettings | Values
    embedder: str | Values
    clusters: int | Literal["auto"] | Values
    objective: str | Values
    within_cluster: WithinCluster | Values
