"""Registration of a run's models and plan as a version of a registered model in MLflow."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from gio_spark.engine import output_schema
from gio_spark.errors import TrackingError
from gio_spark.pipeline.run_context import fingerprint
from gio_spark.pipeline.stages.freeze_plan import read_frozen_plan
from gio_spark.pipeline.stages.frozen_plan import SCORED_SCHEMA
from gio_spark.pipeline.stages.open_inputs import tracked
from gio_spark.pipeline.stages.refresh_chain import Before
from gio_spark.tables.output_folders import local_folder
from gio_spark.tracking import PlanModel, register_version

if TYPE_CHECKING:
    from gio_spark.pipeline.run_context import RunContext
    from gio_spark.pipeline.run_records import RunSummary
    from gio_spark.pipeline.stages.publish_selection import Publication
    from gio_spark.tables import Workspace

REGISTER = "register model"
_CODE = Path(__file__).with_name("plan_model_code.py")
_TYPES = {"int32": "integer", "bool": "boolean"}


def register_plan(
    ctx: RunContext, base: RunSummary, publication: Publication, *, is_tracked: bool
) -> None:
    """Register the models and the plan of a published selection, unless that is done already.

    Args:
        ctx: The run.
        base: Summary of the run that has the models.
        publication: Outcome of its publication; nothing is registered of what is not published.
        is_tracked: Whether the tracked run of `ctx` is open; else one is begun for the model.

    Raises:
        TrackingError: It cannot be registered, and `tracking.on_error` is stop.
    """
    settings = ctx.settings.tracking
    name = settings.registered_model
    if not settings.enabled or name is None or publication.number is None:
        return
    before = Before.of(ctx.workspace, base)
    refreshed = "" if before.summary is None else before.summary.keys.plan
    key = fingerprint(REGISTER, name, base.run, refreshed or base.plan_key)
    if ctx.workspace.recorded(REGISTER, key):
        return
    if is_tracked:
        _register(ctx, base, publication, key)
    else:
        with tracked(ctx, f"model of {ctx.run}", {"gio.command": REGISTER}):
            _register(ctx, base, publication, key)


def registered_versions(workspace: Workspace) -> tuple[str, ...]:
    """Name and version of every model that was registered from a workspace."""
    details = [r.detail for r in workspace.records() if r.stage == REGISTER]
    return tuple(f"{detail['name']} version {detail['version']}" for detail in details)


def _register(ctx: RunContext, base: RunSummary, publication: Publication, key: str) -> None:
    settings, mlflow_run = ctx.settings.tracking, ctx.tracker.run_id
    if mlflow_run is None:  # which the tracker reports
        return
    plan = read_frozen_plan(ctx, base)
    kinds = {f.name: _TYPES.get(str(f.type), str(f.type)) for f in output_schema(SCORED_SCHEMA)}
    try:
        with TemporaryDirectory() as folder:
            files = Path(folder) / "plan"
            plan.save(files)
            version = register_version(
                PlanModel(
                    str(settings.registered_model), key, files, _CODE, plan.frame_columns, kinds,
                    {
                        "gio.run": base.run,
                        "gio.refresh": str(plan.facts.refresh),
                        "gio.published": f"{publication.name} {publication.number}",
                    },
                ),
                settings,
                local_folder(ctx.workspace) / "tracking",
                run=mlflow_run,
            )  # fmt: skip
    except TrackingError as error:
        if settings.on_error == "stop":
            raise
        ctx.progress.say(f"tracking: {error}. The next run tries again.")
        return
    ctx.workspace.record(
        run=base.run, stage=REGISTER, fingerprint=key, table="", rows=0, seconds=0.0, only=(),
        detail={"name": settings.registered_model, "version": version},
    )  # fmt: skip
    ctx.progress.say(f"registered model: {settings.registered_model} version {version}")
