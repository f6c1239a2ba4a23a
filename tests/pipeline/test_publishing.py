"""Write, audit, publish: readers of a name see whole, judged selections and nothing else."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from gio_spark import read_selection
from gio_spark.engine.progress import Progress
from gio_spark.errors import ConcurrentRunError, ConfigError, InputError
from gio_spark.pipeline.refresh import refresh
from gio_spark.pipeline.stages import metric_series, publish_selection
from gio_spark.settings.run import RetentionSettings
from gio_spark.tables import PublishLog, Workspace, forget, prune
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded
SILENT = Progress("silent")
# The package has functions of the same names.
run_module = sys.modules["gio_spark.pipeline.run"]
refresh_module = sys.modules["gio_spark.pipeline.refresh"]


def published_ids(spark, place, name="selection", **more):
    """Ids that readers of a name see."""
    return jobs.ids(read_selection(name, workspace=place / "ws", spark=spark, **more))


def grow(place, rows=100, seed=9, name="n"):
    more = jobs.vector_pool(rows, seed=seed, name=name)
    jobs.write(pa.concat_tables([jobs.vector_pool(), more]), place / "pool.parquet")


def failing(**changes):
    """Settings whose gate cannot pass."""
    return {"gime": {"thresholds": {"scope": 1.0, "mismatch": 1.0}, "moves": 0}, **changes}


def test_every_publish_has_a_number_and_keeps_its_rows(spark, place):
    first = jobs.go(jobs.settings(place))
    assert first.publication.number == 1
    second = jobs.go(jobs.settings(place, budget=60))
    assert (second.publication.name, second.publication.number) == ("selection", 2)
    assert published_ids(spark, place) == jobs.ids(second.selected)
    assert len(published_ids(spark, place)) == 60
    assert published_ids(spark, place, publish=1) == jobs.ids(first.selected)
    with pytest.raises(InputError, match="selection has no publish 7: they are 1 to 2"):
        published_ids(spark, place, publish=7)
    with pytest.raises(InputError, match="Nothing is published as 'other'"):
        published_ids(spark, place, "other")


def test_names_are_published_apart_and_the_name_is_no_part_of_the_run(spark, place):
    one = jobs.go(jobs.settings(place, name="one"))
    other = jobs.go(jobs.settings(place, name="other"))
    assert other.run_id == one.run_id and not other.did_work
    assert (one.publication.number, other.publication.number) == (1, 1)
    assert published_ids(spark, place, "one") == published_ids(spark, place, "other")


def test_a_selection_whose_audit_fails_leaves_what_is_published_and_can_be_moved_to(spark, place):
    jobs.go(jobs.settings(place))
    before = published_ids(spark, place)
    unpublished = jobs.go(jobs.settings(place, **failing(budget=50)))
    assert (
        unpublished.publication.number is None
        and "the gate fails" in unpublished.publication.failed
    )
    assert published_ids(spark, place) == before
    assert unpublished.selected.count() == 50  # the candidate can be looked at
    again = jobs.go(jobs.settings(place, **failing(budget=50)))
    assert not again.did_work and again.publication.failed == unpublished.publication.failed
    workspace = Workspace(spark, str(place / "ws"))
    event = publish_selection.publish_by_hand(workspace, unpublished.run_id, name=None)
    assert (event.name, event.number, event.why) == ("selection", 2, "by hand")
    assert published_ids(spark, place) == jobs.ids(unpublished.selected)


def test_a_rollback_goes_back_step_by_step_and_is_not_undone_by_a_second_run(spark, place):
    runs = [jobs.go(jobs.settings(place, budget=b)) for b in (100, 60, 50)]
    workspace = Workspace(spark, str(place / "ws"))
    back = publish_selection.roll_back(workspace, "selection")
    assert (back.number, back.source_number) == (4, 2)
    assert published_ids(spark, place) == jobs.ids(runs[1].selected)
    again = jobs.go(jobs.settings(place, budget=50))
    assert "shows publish 4" in again.publication.note
    assert published_ids(spark, place) == jobs.ids(runs[1].selected)
    assert publish_selection.roll_back(workspace, "selection").source_number == 1
    assert published_ids(spark, place) == jobs.ids(runs[0].selected)
    with pytest.raises(InputError, match="no publish before number 1"):
        publish_selection.roll_back(workspace, "selection")
    assert [e.number for e in PublishLog(workspace).publishes("selection")] == [1, 2, 3, 4, 5]


def test_of_several_who_publish_at_once_each_gets_a_number_of_its_own(spark, place):
    run = jobs.go(jobs.settings(place))
    candidate = publish_selection.newest_candidate(Workspace(spark, str(place / "ws")), run.run_id)
    facts = {
        "run": run.run_id, "table": candidate.table, "rows": candidate.rows, "why": "",
        "input_version": "",
    }  # fmt: skip

    def publish(_):
        log = PublishLog(Workspace(spark, str(place / "ws")))
        return [log.publish("selection", **facts).number for _ in range(3)]

    with ThreadPoolExecutor(3) as threads:
        numbers = [n for given in threads.map(publish, range(3)) for n in given]
    assert sorted(numbers) == list(range(2, 11))
    log = PublishLog(Workspace(spark, str(place / "ws")))
    assert [e.sequence for e in log.events("selection")] == list(range(1, 11))
    with pytest.raises(ConcurrentRunError, match="shows publish 10, of"):
        log.publish("selection", **facts, only_after=("run-of-nobody",))
    assert log.current("selection").number == 10


def test_a_refresh_is_published_after_its_audit_and_not_over_another_run(spark, place):
    first = jobs.settings(place)
    jobs.go(first)
    before = published_ids(spark, place)
    grow(place)
    done = refresh(first, progress=SILENT)
    assert done.publication.number == 2 and done.added > 0
    assert (
        published_ids(spark, place) != before and published_ids(spark, place, publish=1) == before
    )
    assert len(published_ids(spark, place)) == done.after
    other = jobs.go(jobs.settings(place, budget=30))
    grow(place, 150)
    late = refresh(first, progress=SILENT)
    assert late.publication.number is None and other.run_id in late.publication.note
    assert published_ids(spark, place) == jobs.ids(other.selected)


def test_a_refresh_whose_gate_fails_publishes_nothing(spark, place, monkeypatch):
    unpublished = jobs.settings(place, gime={"thresholds": {"scope": 0.01}, "on_refresh": True})
    assert jobs.go(unpublished).publication.number == 1
    before = published_ids(spark, place)
    grow(place)
    judge = metric_series.verdict_of

    def judge_strictly(gate, figures):
        """Judge the same rows by a bound that they cannot meet."""
        bound = replace(gate.thresholds[0], metric="scope", bound=2.0, direction="more")
        return judge(gate.model_copy(update={"thresholds": (bound,), "rescale": False}), figures)

    with monkeypatch.context() as strict:
        strict.setattr(metric_series, "verdict_of", judge_strictly)
        done = refresh(unpublished, progress=SILENT)
    assert done.publication.failed.startswith("the gate fails: scope")
    assert published_ids(spark, place) == before
    again = refresh(unpublished, progress=SILENT)
    assert not again.did_work and again.publication.failed.startswith("the gate fails: scope")
    assert published_ids(spark, place) == before


def test_a_refresh_whose_metrics_drift_is_held_back_where_the_settings_say_so(spark, place):
    held = jobs.settings(place, gime={"on_refresh": True}, publish={"on_drift": "hold"})
    jobs.go(held)
    pool = jobs.vector_pool()
    for number in range(6):
        more = jobs.vector_pool(12, seed=number, name=f"n{number}-")
        if number == 5:  # the same vectors as ever, but of a thousand times as many tokens
            words = pa.array([30_000] * 12, pa.int64())
            more = more.set_column(more.schema.get_field_index("words"), "words", words)
        pool = pa.concat_tables([pool, more])
        jobs.write(pool, place / "pool.parquet")
        before = published_ids(spark, place)
        done = refresh(held, progress=SILENT)
        if number < 5:
            assert done.publication.number == number + 2 and not done.publication.failed
    drifted = done.publication.failed.removeprefix("metrics drifted: ").split(", ")
    assert {"pool/volume", "selected/volume"} <= set(drifted)
    assert not any(name.startswith("random/") for name in drifted)
    assert published_ids(spark, place) == before


# Two of each kind; the others with the other faults.
BOUNDARIES = [
    (run_module, "audit_and_publish", False),
    (run_module, "_publish", True),
]
MORE_BOUNDARIES = [
    (run_module, "_record_run", False),
    (publish_selection, "publish_audited", False),
    (publish_selection, "show_published", False),
]


@pytest.mark.parametrize(
    ("module", "name", "after"),
    [*BOUNDARIES, *(pytest.param(*b, marks=pytest.mark.faults) for b in MORE_BOUNDARIES)],
    ids=[b[1] for b in (*BOUNDARIES, *MORE_BOUNDARIES)],
)
def test_a_run_that_dies_before_or_after_any_step_of_publishing_is_seen_whole_or_not_at_all(
    spark, place, monkeypatch, module, name, after
):
    jobs.go(jobs.settings(place))
    old = published_ids(spark, place)
    real = getattr(module, name)

    def dies(*words, **more):
        if after:
            real(*words, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(module, name, dies)
        with pytest.raises(KeyboardInterrupt):
            jobs.go(jobs.settings(place, budget=60))
    published = published_ids(spark, place)
    assert published == old or len(published) == 60
    curation = jobs.go(jobs.settings(place, budget=60))
    assert curation.publication.number == 2
    assert published_ids(spark, place) == jobs.ids(curation.selected)
    assert published_ids(spark, place, publish=1) == old


REFRESH_STEPS = [
    ("write_candidate", True),
    pytest.param("measure_refresh", False, marks=pytest.mark.faults),
    pytest.param("audit_and_publish", False, marks=pytest.mark.faults),
    ("audit_and_publish", True),
]


@pytest.mark.parametrize(("name", "after"), REFRESH_STEPS)
def test_a_refresh_that_dies_at_any_step_is_seen_whole_or_not_at_all(
    spark, place, monkeypatch, name, after
):
    settings = jobs.settings(place, gime={"on_refresh": True})
    jobs.go(settings)
    old = published_ids(spark, place)
    grow(place)
    real = getattr(refresh_module, name)

    def dies(*words, **more):
        if after:
            real(*words, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(refresh_module, name, dies)
        with pytest.raises(KeyboardInterrupt):
            refresh(settings, progress=SILENT)
    published = published_ids(spark, place)
    done = refresh(settings, progress=SILENT)
    assert done.publication.number == 2
    now = published_ids(spark, place)
    assert len(now) == done.after and published in (old, now)
    undisturbed = jobs.settings(
        place, gime={"on_refresh": True}, workspace=str(place / "undisturbed")
    )
    jobs.write(jobs.vector_pool(), place / "pool.parquet")
    jobs.go(undisturbed)
    grow(place)
    refresh(undisturbed, progress=SILENT)
    other = read_selection("selection", workspace=place / "undisturbed", spark=spark)
    assert jobs.ids(other) == now


def test_a_selection_has_the_pools_own_columns_with_not_null_and_comments(spark, place):
    from deltalake import Field, Schema, write_deltalake
    from deltalake.schema import ArrayType, PrimitiveType

    schema = Schema(
        [
            Field("id", PrimitiveType("string"), nullable=False, metadata={"comment": "the 'key'"}),
            Field("vector", ArrayType(PrimitiveType("float"), True)),
            Field("site", PrimitiveType("string")),
            Field("words", PrimitiveType("long"), nullable=False),
            Field("note", PrimitiveType("string")),
        ]
    )
    DeltaTable.create(str(place / "pool"), schema=schema)
    write_deltalake(str(place / "pool"), jobs.vector_pool(), mode="append")
    settings = jobs.settings(place, pool=str(place / "pool"))
    curation = jobs.select(settings)
    fields = DeltaTable(curation.tables["selected"]).schema().fields
    columns = ["id", "vector", "site", "words", "note"]
    added = [
        "gio_id", "gio_cluster", "gio_reason", "gio_log_ratio", "gio_input_version", "gio_run",
    ]  # fmt: skip
    assert [f.name for f in fields] == [*columns, *added]
    assert [f.nullable for f in fields[:5]] == [False, True, True, False, True]
    assert fields[0].metadata["comment"] == "the 'key'"


def test_runs_whose_pools_have_other_columns_leave_each_other_alone(spark, place):
    first = jobs.go(jobs.settings(place))
    before = first.selected.toArrow().sort_by("gio_id")
    wider = jobs.vector_pool(300, name="w").append_column("lang", pa.array(["en"] * 300))
    narrow = wider.drop_columns(["note"])
    for name, pool, changes in (
        ("wider", wider, {}),
        ("narrow", narrow, {}),
        ("ids", wider, {"explode": {"output": "ids"}, "budget": 20}),
        ("typed", wider.set_column(3, "words", pa.array(range(300), pa.int32())), {}),
        ("second", wider, {"quantize": {"second": True}}),
    ):
        jobs.write(pool, place / f"{name}.parquet")
        changes = {"budget": 30, "name": name, **changes}
        settings = jobs.settings(place, pool=str(place / f"{name}.parquet"), **changes)
        curation = jobs.go(settings)
        assert curation.publication.number == 1
        again = first.selected.sparkSession
        assert (
            read_selection("selection", workspace=place / "ws", spark=again)
            .toArrow()
            .sort_by("gio_id")
            .equals(before)
        )
        columns = [] if name == "ids" else pool.schema.names
        assert curation.selected.columns[: len(columns)] == columns
    grow(place)
    assert refresh(jobs.settings(place), progress=SILENT).publication.number == 2


def test_retention_keeps_current_and_pinned_publishes_and_forgets_nothing_that_is_read(
    spark, place
):
    runs = [jobs.go(jobs.settings(place, budget=b)) for b in (100, 60, 50, 40)]
    workspace = Workspace(spark, str(place / "ws"))
    log = PublishLog(workspace)
    log.pin("selection", 1, keep=True)
    few = RetentionSettings(runs=1, publishes=1, hours=0)
    dropped = prune(workspace, few)
    assert len(dropped.tables) == 2 and dropped.attempts == {}  # all runs share their embeddings
    assert (
        len(published_ids(spark, place)) == 40
        and len(published_ids(spark, place, publish=1)) == 100
    )
    with pytest.raises(InputError, match="publish 2 of selection are no longer there"):
        published_ids(spark, place, publish=2)
    with pytest.raises(InputError, match="is publish 1 of selection, which is pinned"):
        forget(workspace, runs[0].run_id, few)
    with pytest.raises(InputError, match="is publish 4 of selection, which is current"):
        forget(workspace, runs[3].run_id, few)
    log.pin("selection", 1, keep=False)
    assert not jobs.go(jobs.settings(place, budget=40)).did_work
    forget(workspace, runs[0].run_id, few)
    # What the run had made first, the others read on.
    left = Workspace(spark, str(place / "ws"))
    assert left.complete("embed pool", next(iter(left.keys("embeddings")))) is not None
    assert not jobs.go(jobs.settings(place, budget=40)).did_work
    redone = jobs.go(jobs.settings(place))
    assert "embed pool" not in jobs.done(redone) and redone.selected.count() == 100


def test_a_forgotten_run_leaves_no_rows_of_its_own(spark, place):
    other = jobs.vector_pool(300, seed=5, name="o")
    jobs.write(other, place / "other.parquet")
    forgotten = jobs.go(jobs.settings(place, pool=str(place / "other.parquet"), budget=30))
    retained = jobs.go(jobs.settings(place))
    workspace = Workspace(spark, str(place / "ws"))
    gone = forget(workspace, forgotten.run_id, RetentionSettings(hours=0))
    assert set(gone.attempts) == {"embeddings", "assignments"} and len(gone.tables) == 1
    files = list((place / "ws" / "embeddings").rglob("*.parquet"))
    ids = {i for f in files for i in pq.read_table(f, columns=["id"])["id"].to_pylist()}
    assert not any(i.startswith("o") for i in ids) and any(i.startswith("p") for i in ids)
    # The target is both runs': what was made of it stays.
    left = Workspace(spark, str(place / "ws")).records(forgotten.run_id)
    assert {r.stage for r in left} == {"embed target"}
    assert not jobs.go(jobs.settings(place)).did_work
    assert retained.selected.count() == 100


def test_a_published_selection_is_copied_where_that_is_asked_for(spark, place):
    config = jobs.settings(place, publish={"copy_rows": True}, name="sft-code")
    jobs.go(config)
    assert jobs._read(place / "ws", "published_sft_code").num_rows == 100
    jobs.go(jobs.settings(place, publish={"copy_rows": True}, name="sft-code", budget=70))
    assert jobs._read(place / "ws", "published_sft_code").num_rows == 70
    publish_selection.roll_back(Workspace(spark, str(place / "ws")), "sft-code")
    assert jobs._read(place / "ws", "published_sft_code").num_rows == 100


def test_what_is_not_to_be_published_by_itself_waits_for_a_person(spark, place):
    unpublished = jobs.go(jobs.settings(place, publish={"automatic": False}))
    assert unpublished.publication.number is None and unpublished.publication.failed == ""
    assert "gio-spark publish" in unpublished.publication.note
    with pytest.raises(InputError, match="Nothing is published"):
        published_ids(spark, place)
    assert replace(unpublished.publication, note="").name == "selection"


def test_two_names_that_would_share_a_view_are_refused(spark, place):
    run = jobs.go(jobs.settings(place, name="sft-code"))
    workspace = Workspace(spark, str(place / "ws"))
    with pytest.raises(ConfigError, match="'sft_code' and the published name 'sft-code'"):
        publish_selection.publish_by_hand(workspace, run.run_id, name="sft_code")
