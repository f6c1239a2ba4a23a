"""Lineage of a selection: the run event of OpenLineage with its inputs and its table, as JSON."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pyspark.sql import types as T

from gio_spark.settings.redact import HIDDEN, redact
from gio_spark.tables.identifiers import absolute, is_remote_path, kind_of, parts
from gio_spark.tables.output_folders import report_folder
from gio_spark.version import __version__

if TYPE_CHECKING:
    from gio_spark.pipeline.refresh_records import RefreshSummary
    from gio_spark.pipeline.run_records import RunSummary
    from gio_spark.tables import Workspace

_PRODUCER = f"urn:gio-spark:{__version__}"
_SPEC = "https://openlineage.io/spec"
_EVENT = f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"


def lineage_path(workspace: Workspace, run: str, refresh: int = 0) -> Path:
    """File of the event of a run, or of one of its refreshes."""
    name = f"openlineage-refresh-{refresh}.json" if refresh else "openlineage.json"
    return report_folder(workspace, run) / name


def write_lineage(
    workspace: Workspace, base: RunSummary, *, table: str, rows: int, refresh: RefreshSummary | None
) -> Path:
    """Write the event of a selection beside the report of its run.

    Args:
        workspace: Where the selection is.
        base: Summary of the run.
        table: Table of the selection.
        rows: Its rows.
        refresh: Summary of the refresh that wrote it; None: the run itself.
    """
    versions, columns, number = dict(base.versions), dict(base.columns), 0
    if refresh is not None:
        others = {name: text.partition(" of ")[0] for name, text in (refresh.others or {}).items()}
        versions |= {**others, "pool": refresh.version}
        columns["pool"] = type_names(T.StructType.fromJson(refresh.pool_schema))
        number = refresh.number
    selection = dataset(workspace.place(table), str(workspace.version(table)))
    selection["facets"]["schema"] = _schema(type_names(workspace.read_table(table).schema))
    statistics = _facet("OutputStatisticsOutputDatasetFacet", rowCount=rows)
    namespace, name = dataset_name(workspace.location)
    event = {
        "eventType": "COMPLETE",
        "eventTime": datetime.now(timezone.utc).isoformat(),
        "producer": _PRODUCER,
        "schemaURL": _EVENT,
        # The same selection is the same run, whoever writes its event.
        "run": {"runId": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{namespace}/{name}/{table}"))},
        "job": {"namespace": "gio-spark", "name": f"{name}/{base.name}"},
        "inputs": [
            dataset(location, versions[role], columns.get(role))
            for role, location in base.inputs.items()
        ],
        "outputs": [{**selection, "outputFacets": {"outputStatistics": statistics}}],
    }
    page = lineage_path(workspace, base.run, number)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(json.dumps(event, indent=2, ensure_ascii=False), encoding="utf-8")
    return page


def type_names(schema: T.StructType) -> dict[str, str]:
    """Column -> type, as Spark shows it."""
    return {field.name: field.dataType.simpleString() for field in schema.fields}


def dataset(
    location: str, version: str, columns: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A dataset of OpenLineage with its version, and its columns where they are known."""
    namespace, name = dataset_name(location)
    facets = {"version": _facet("DatasetVersionDatasetFacet", datasetVersion=version)}
    if columns:
        facets["schema"] = _schema(columns)
    return {"namespace": namespace, "name": name, "facets": facets}


def dataset_name(location: str) -> tuple[str, str]:
    """Namespace and name of a location by OpenLineage's naming, without credentials.

    Example:
        >>> dataset_name("s3://key:secret@bucket/corpus/pool")
        ('s3://bucket', '/corpus/pool')
        >>> dataset_name("main.corpus.pool")
        ('spark-catalog', 'main.corpus.pool')
    """
    if kind_of(location) == "table":
        return "spark-catalog", ".".join(parts(location))
    location = redact(absolute(location)).replace(f"{HIDDEN}@", "")
    if not is_remote_path(location):
        return "file", location
    # What follows a question mark is options of the store, signatures among them.
    split = urlsplit(location)
    return f"{split.scheme}://{split.netloc}", split.path


def _schema(columns: Mapping[str, str]) -> dict[str, Any]:
    fields = [{"name": name, "type": kind} for name, kind in columns.items()]
    return _facet("SchemaDatasetFacet", fields=fields)


def _facet(facet: str, **values: Any) -> dict[str, Any]:
    """A facet of the specification, with the fields that all facets have."""
    page = f"{_SPEC}/facets/1-0-0/{facet}.json#/$defs/{facet}"
    return {"_producer": _PRODUCER, "_schemaURL": page, **values}
