"""The OpenLineage event beside each selection, held against the fields of the specification."""

from __future__ import annotations

import json
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from gio_spark.engine.progress import Progress
from gio_spark.pipeline.refresh import refresh
from gio_spark.pipeline.stages.lineage_event import dataset_name
from tests.pipeline import jobs

# Objects of the specification (2-0-2) and its facets (1-0-0): fields that must and may be there.
EVENT = ({"eventTime", "producer", "schemaURL", "run", "job"}, {"eventType", "inputs", "outputs"})
RUN = ({"runId"}, {"facets"})
JOB = ({"namespace", "name"}, {"facets"})
INPUT = ({"namespace", "name"}, {"facets", "inputFacets"})
OUTPUT = ({"namespace", "name"}, {"facets", "outputFacets"})
FACET = {"_producer", "_schemaURL"}
FACETS: dict[str, tuple[str, str, type]] = {
    "schema": ("SchemaDatasetFacet", "fields", list),
    "version": ("DatasetVersionDatasetFacet", "datasetVersion", str),
    "outputStatistics": ("OutputStatisticsOutputDatasetFacet", "rowCount", int),
}


def check_fields(value: dict[str, Any], fields: tuple[set[str], set[str]]) -> None:
    required, optional = fields
    assert required <= set(value) <= required | optional


def check_facets(facets: dict[str, Any]) -> None:
    for name, facet in facets.items():
        schema, field, kind = FACETS[name]
        assert set(facet) == FACET | {field}
        assert facet["_schemaURL"].endswith(f"/{schema}.json#/$defs/{schema}")
        assert isinstance(facet[field], kind)
        for column in facet[field] if name == "schema" else []:
            assert {"name"} <= set(column) <= {"name", "type", "description"}


def check_event(page: Path) -> dict[str, Any]:
    """Assert that a file is a run event of OpenLineage, and return it."""
    event: dict[str, Any] = json.loads(page.read_text(encoding="utf-8"))
    check_fields(event, EVENT)
    check_fields(event["run"], RUN)
    check_fields(event["job"], JOB)
    assert event["eventType"] == "COMPLETE"
    assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
    uuid.UUID(event["run"]["runId"])
    for kind, datasets in ((INPUT, event["inputs"]), (OUTPUT, event["outputs"])):
        for one in datasets:
            check_fields(one, kind)
            check_facets(one["facets"])
            check_facets(one.get("outputFacets", {}))
    return event


@pytest.mark.embedded
def test_a_run_and_its_refresh_say_what_they_read_and_wrote(place):
    settings = jobs.settings(place)
    run = jobs.go(settings)
    jobs.write(jobs.vector_pool(650), place / "pool.parquet")
    refreshed = refresh(settings, progress=Progress("silent"))
    first = check_event(run.report.parent / "openlineage.json")
    second = check_event(run.report.parent / "openlineage-refresh-1.json")

    versions = run.summary["versions"]
    for event, rows in ((first, 100), (second, refreshed.after)):
        assert event["job"]["name"] == f"{place / 'ws'}/selection"
        inputs = {Path(one["name"]).stem: one for one in event["inputs"]}
        assert set(inputs) == {"pool", "target"} and inputs["pool"]["namespace"] == "file"
        assert inputs["target"]["facets"]["version"]["datasetVersion"] == versions["target"]
        columns = inputs["pool"]["facets"]["schema"]["fields"]
        assert {"name": "words", "type": "bigint"} in columns
        (selection,) = event["outputs"]
        assert selection["outputFacets"]["outputStatistics"]["rowCount"] == rows
        assert Path(selection["name"]).joinpath("_delta_log").is_dir()
        names = [field["name"] for field in selection["facets"]["schema"]["fields"]]
        assert names[:5] == ["id", "vector", "site", "words", "note"] and "gio_cluster" in names
    pool_of = [one["inputs"][0]["facets"]["version"]["datasetVersion"] for one in (first, second)]
    assert pool_of[0] == versions["pool"] != pool_of[1]
    assert first["run"] != second["run"]
    assert run.tables["selected"] == first["outputs"][0]["name"]


@pytest.mark.parametrize(
    ("location", "namespace", "name"),
    [
        ("s3://key:secret@bucket/a/b", "s3://bucket", "/a/b"),
        ("abfss://box@store.net/a?sig=secret", "abfss://box@store.net", "/a"),
        ("hdfs://host:8020/a", "hdfs://host:8020", "/a"),
        ("/data/pool", "file", "/data/pool"),
        ("file:///data/pool", "file", "/data/pool"),
        ("main.`raw-data`.pool", "spark-catalog", "main.raw-data.pool"),
    ],
)  # fmt: skip
def test_datasets_are_named_as_openlineage_names_them_and_without_credentials(
    location, namespace, name
):
    assert dataset_name(location) == (namespace, name)
