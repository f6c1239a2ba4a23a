"""What cannot work is told in one clear message, with exit code 2, before any expensive work."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipeline import jobs

pytestmark = pytest.mark.embedded


def refused(made, *words, commands=("validate", "run"), code=2):
    """Check that the commands refuse, and return what they say."""
    said = set()
    for command in commands:
        done = made(command, *words)
        assert done.exit_code == code, (command, done.exit_code, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        said.add(done.stderr[done.stderr.index("error: ") :].strip())
    assert len(said) == 1
    for table in ("embeddings", "selected", "runs"):
        assert not (made.folder / "ws" / table).exists()
    return said.pop()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pool=/no/such/pool", "Nothing found at /no/such/pool"),
        ("target=/no/such/target", "Nothing found at /no/such/target"),
        ("columns.vector=vektor", "columns.vector = 'vektor' (did you mean 'vector'?)"),
        ("columns.vector=note", "but columns.vector must be binary or an array of numbers"),
        ("columns.id=vector", "but columns.id must be a string or an integer"),
        ("columns.tokens=note", "but columns.tokens must be a number"),
        ("budget=0", "budget 0 must be above zero"),
        ("budget=-5", "budget -5 must be above zero"),
        ("budget=301", "above the pool, which has 300: ask for at most 300"),
        ("clusters=301", "301 clusters are more than the pool's 300 rows"),
        ("pool=my'table", "neither an existing path nor a table's name"),
        ("pool=table; DROP TABLE x", "neither an existing path nor a table's name"),
        ('target=a"b', "neither an existing path nor a table's name"),
        ("workspace=main.sche`ma", "neither an existing path nor a table's name"),
        ("buget=5", "unknown key 'buget': did you mean 'budget'?"),
        ("objective=best", "No objective is called 'best'"),
        ("pool.version=3", "is no Delta table, so it has no version 3"),
    ],
)
def test_settings_that_cannot_work_are_refused(make, override, message):
    assert message in refused(make(), override)


@pytest.mark.parametrize("side", ["pool", "target"])
def test_an_empty_input_is_refused(make, side):
    made = make()
    jobs.write(jobs.vector_pool().slice(0, 0), made.folder / f"{side}.parquet")
    said = refused(made)
    assert said.startswith(f"error: {side}: ") and "holds no rows" in said


def test_a_target_of_another_dimension_is_refused_before_the_pool_is_embedded(make):
    made = make()
    short = [v[:4] for v in jobs.vector_target()["vector"].to_pylist()]
    target = jobs.vector_target().set_column(1, "vector", pa.array(short, pa.list_(pa.float32())))
    jobs.write(target, made.folder / "target.parquet")
    said = refused(made)
    assert "4" in said and "6" in said and "dimension" in said


def test_a_name_without_a_catalog_behind_it_is_refused(make):
    said = refused(make(), "pool=no_such_table")
    assert "As a table's name it ends with the session on the embedded engine. Give a path" in said


def test_an_unreadable_file_is_refused(make):
    made = make()
    (made.folder / "pool.parquet").write_bytes(b"this is no Parquet file")
    assert "pool: Cannot read " in refused(made)


def test_a_workspace_that_cannot_be_written_is_refused(make):
    made = make()
    (made.folder / "ws").write_text("a file is in the way")
    for command in ("validate", "run"):
        done = made(command)
        assert done.exit_code in (1, 2)
        assert "Cannot write to the workspace" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_configuration_that_is_not_there_is_refused(make):
    made = make()
    made.config.unlink()
    assert "Cannot read the configuration" in refused(made)


def test_a_pool_without_any_usable_row_stops_the_run(make):
    made = make()
    nulls = pa.nulls(300, pa.list_(pa.float32()))
    pq.write_table(
        jobs.vector_pool(300).set_column(1, "vector", nulls), made.folder / "pool.parquet"
    )
    done = made("run")
    assert done.exit_code == 2
    place = made.folder / "pool.parquet"
    said = " ".join(done.stderr.split())
    assert (
        f"error: pool: {place}: column 'vector' has no vector in 300 sampled rows (300 null, "
        "0 empty, 0 of bytes that are not whole float32 values). Name the column"
    ) in said
    assert "Traceback" not in done.stderr


def test_a_target_without_any_usable_row_stops_the_run_with_its_reasons(make):
    made = make()
    rows = jobs.vector_target()
    vectors = [[float("nan")] * jobs.DIMENSION] * 79 + [[1.0]]
    column = pa.array(vectors, pa.list_(pa.float32()))
    pq.write_table(rows.set_column(1, "vector", column), made.folder / "target.parquet")
    done = made("run", "embed.dimension=6")
    assert done.exit_code == 2
    said = " ".join(done.stderr.split())
    assert "error: target: none of the 80 rows of" in said
    assert "(columns.vector 'vector') cannot be used" not in said
    assert (
        "target.parquet (columns.vector 'vector') can be used: 79 NaN or infinite value, "
        "1 wrong length: 1 instead of 6. See"
    ) in said


def test_a_pool_that_is_a_selection_of_an_earlier_run_is_refused_before_any_work(make):
    made = make()
    pool = jobs.vector_pool(300).append_column("GIO_Run", pa.array(["r"] * 300))
    jobs.write(pool, made.folder / "pool.parquet")
    assert "has columns named GIO_Run, which a selection adds itself" in refused(made)


def test_more_clusters_than_usable_rows_are_refused_before_the_fit(make):
    made = make()
    rows = jobs.vector_pool(300).to_pylist()
    for row in rows[:50]:
        row["vector"] = None
    pool = pa.Table.from_pylist(rows, schema=jobs.vector_pool().schema)
    jobs.write(pool, made.folder / "pool.parquet")
    done = made("run", "clusters=270")
    assert done.exit_code == 2
    assert "270 clusters are more than the 250 rows of the pool that can be used" in done.stderr
    assert not (made.folder / "ws" / "assignments").exists()


def test_validate_and_a_dry_run_write_nothing(make):
    made = make(tracking={})
    before = sorted(made.folder.rglob("*"))
    for words in (("validate",), ("run", "--dry-run")):
        done = made(*words)
        assert done.exit_code == 0, done.stderr
        assert sorted(made.folder.rglob("*")) == before


def test_paths_of_the_file_are_found_from_any_folder(make, tmp_path_factory, monkeypatch):
    made = make(pool="pool.parquet", target="./target.parquet", workspace="ws")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    done = made("validate")
    assert done.exit_code == 0, done.stderr
    assert made("validate", "pool=./pool.parquet").exit_code == 2
