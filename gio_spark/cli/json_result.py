"""Results of commands as plain values, for `--json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gio_spark.errors import GioSparkError

if TYPE_CHECKING:
    from gio_spark.pipeline import Curation
    from gio_spark.pipeline.commands.check import Checked
    from gio_spark.pipeline.commands.forecast import Forecast
    from gio_spark.pipeline.commands.gate import Gated
    from gio_spark.pipeline.commands.plan_refresh import PlannedRefresh
    from gio_spark.pipeline.commands.sensitivity import SensitivityOutput
    from gio_spark.pipeline.refresh import Refreshed
    from gio_spark.pipeline.stage_runner import PlannedStage
    from gio_spark.pipeline.stages.publish_selection import Publication
    from gio_spark.tables import Input


def json_text(facts: Mapping[str, Any]) -> str:
    """One line of JSON; numbers that JSON cannot hold become null."""
    return json.dumps(_plain(facts), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """Value made of what JSON holds."""
    if isinstance(value, pd.DataFrame):
        return [_plain(row) for row in value.to_dict("records")]
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def error_facts(error: Exception) -> dict[str, Any]:
    """Type and message of an error, and what it is about where that is known."""
    facts: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, GioSparkError):
        subject = {n: getattr(error, n) for n in ("location", "path", "version", "column", "cause")}
        facts |= {name: value for name, value in subject.items() if value is not None}
    return facts


def curation_facts(curation: Curation) -> dict[str, Any]:
    """Run, counts, divergences, paths, publication and warnings of a run."""
    summary = curation.summary
    facts: dict[str, Any] = {"run": curation.run_id, "did_work": curation.did_work}
    if "selected_rows" in summary:
        facts["counts"] = {
            "pool": summary["pool_rows"],
            "target": summary["target_rows"],
            "selected": summary["selected_rows"],
            "copies": summary.get("copies"),
            "clusters": summary["clusters"],
            "clusters_selected": summary.get("clusters_selected"),
            "quarantine": summary["quarantine"],
        }
        facts["budget"] = {
            "text": summary["budget_in_words"],
            "unit": summary["unit"],
            "spent": summary["spent"],
        }
        facts["divergences"] = summary["divergences"]
        facts["strategy"] = summary.get("strategy")
        facts["engine"] = summary["engine"]
        verdict = summary.get("gate")
        facts["gate"] = verdict and {"passed": verdict["passed"], "why": verdict["why"]}
        facts["warnings"] = [
            {"name": name, "text": text, "action": action}
            for name, text, action in summary["cautions"]
        ]
    facts["paths"] = {**curation.tables, "report": curation.report}
    facts["publication"] = publication_facts(curation.publication)
    return facts


def publication_facts(publication: Publication | None) -> dict[str, Any] | None:
    """Name and number of a publish, or why there is none."""
    if publication is None:
        return None
    return {
        "name": publication.name,
        "number": publication.number,
        "failed": publication.failed or None,
        "note": publication.note or None,
    }


def planned_facts(stages: list[PlannedStage]) -> dict[str, Any]:
    """Stages of a dry run, and whether each is complete."""
    return {
        "stages": [
            {
                "name": stage.name,
                "complete": stage.complete,
                **({"note": stage.note} if stage.note else {}),
            }
            for stage in stages
        ]
    }


def forecast_facts(
    forecast: Forecast, inputs: Mapping[str, Input], embedder: str, warnings: list[str]
) -> dict[str, Any]:
    """Inputs, plan and cost of a run that was validated."""
    return {
        "inputs": {
            name: {
                "rows": one.count,
                "format": one.format,
                "version": one.version,
                "location": one.location,
            }
            for name, one in inputs.items()
        },
        "embedder": embedder,
        "dimension": forecast.dimension,
        "clusters": forecast.clusters,
        "budget": forecast.budget,
        "core_seconds": forecast.core_seconds,
        "bytes_written": forecast.bytes_written,
        "driver_bytes": forecast.driver_bytes,
        "worker_bytes": forecast.worker_bytes,
        "warnings": warnings,
    }


def refresh_facts(refreshed: Refreshed) -> dict[str, Any]:
    """Counts of a refresh, its gate, drift and publication."""
    verdict = refreshed.gate
    return {
        "run": refreshed.run_id,
        "did_work": refreshed.did_work,
        "counts": {
            "new": refreshed.new_rows,
            "changed": refreshed.changed_rows,
            "gone": refreshed.gone_rows,
            "quarantine": refreshed.bad_rows,
            "selected_before": refreshed.before,
            "added": refreshed.added,
            "dropped": refreshed.dropped,
            "selected": refreshed.after,
        },
        "follows": refreshed.follows or None,
        "budget": {"rule": refreshed.budget, **_plan_facts(refreshed)},
        "drift": None if refreshed.drift is None else refreshed.drift.plain(),
        "gate": None if verdict is None else {"passed": verdict.passed, "why": verdict.why},
        "drifted": refreshed.drifted,
        "publication": publication_facts(refreshed.publication),
    }


def planned_refresh_facts(planned: PlannedRefresh) -> dict[str, Any]:
    """Changed rows of a refresh, its expected cost, and the drift so far."""
    return {
        "run": planned.run_id,
        "nothing_to_do": planned.is_current,
        "counts": {
            "pool": planned.pool_rows,
            "new": planned.new_rows,
            "changed": planned.changed_rows,
            "gone": planned.gone_rows,
            "to_embed": planned.rows_to_embed,
        },
        "changed_targets": planned.changed_targets,
        "drift": None if planned.drift is None else planned.drift.plain(),
        "seconds": planned.seconds,
        "stages": [vars(stage) for stage in planned.stages],
    }


def _plan_facts(refreshed: Refreshed) -> dict[str, Any]:
    """Budget, divergence and certificate of the plan on the present rows."""
    plan = refreshed.plan
    if plan is None:
        return {}
    return {
        "asked": plan.budget,
        "unit": plan.unit,
        "spent": plan.spent,
        "divergences": plan.divergences,
        "lost_mass": plan.lost_mass,
        "certificate": plan.certificate,
        "warnings": [{"name": n.name, "text": n.text, "action": n.remedy} for n in plan.notices],
    }


def check_facts(checked: Checked) -> dict[str, Any]:
    """Verdicts of the checks, with their figures."""
    return {
        "passed": all(one.passed for one in checked.checks),
        "checks": [
            {
                "name": one.name,
                "passed": one.passed,
                "text": one.text,
                "remedy": None if one.passed else one.remedy,
                "figures": one.figures,
            }
            for one in checked.checks
        ],
        "paths": {"page": checked.page},
    }


def sensitivity_facts(result: SensitivityOutput) -> dict[str, Any]:
    """Metrics that models depend on, thresholds and their cost."""
    facts = result.result.facts
    return {
        "did_work": not result.skipped,
        "counts": {"models": facts.models, "subset": facts.size},
        "measure": facts.measure,
        "level": result.level,
        "metrics": result.result.table,
        "thresholds": result.thresholds,
        "curve": result.result.curve,
        "warnings": facts.notes,
        "paths": {"table": result.place, "page": _path(result.page)},
    }


def gate_facts(verdict: Gated) -> dict[str, Any]:
    """Verdict of the gate, with each threshold."""
    return {
        "run": verdict.run_id,
        "passed": verdict.passed,
        "why": verdict.verdict.why,
        "checks": verdict.checks,
        "warnings": verdict.verdict.notes,
        "paths": {"page": _path(verdict.page)},
    }


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)
