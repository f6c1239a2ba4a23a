"""Settings from YAML, Python and overrides, and the messages that tell what is wrong with them."""

from __future__ import annotations

import math

import pytest
import yaml
from pydantic import ValidationError

from gio_spark.errors import ConfigError
from gio_spark.settings.budget import parse_budget
from gio_spark.settings.example import example
from gio_spark.settings.load import build, load, merge
from gio_spark.settings.run import SHORTHANDS, RunSettings

SMALL = {"pool": "a/pool", "target": "a/target", "columns": {"id": "key", "text": "body"}}


def written(folder, text):
    file = folder / "run.yml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_yaml_file_gives_the_same_settings_as_python(folder):
    whole = {**SMALL, "pool": "/a/pool", "target": "/a/target", "workspace": "/ws"}
    file = written(folder, yaml.safe_dump(whole))
    assert load(file) == build({**whole, "name": file.stem})


def test_a_selection_is_published_under_the_name_of_its_file_or_a_given_one(folder):
    file = written(folder, yaml.safe_dump(SMALL))
    odd = file.with_name("sft code (v2).yml")
    file.rename(odd)
    assert load(odd).published_name() == "sft-code--v2-"
    assert load(odd, ["name=sft-code"]).published_name() == "sft-code"
    assert build(SMALL).published_name() == "selection"
    with pytest.raises(ConfigError, match="cannot be the name of a selection"):
        load(odd, ["name=a/b"])


def test_unset_settings_take_their_defaults():
    made = build(SMALL)
    assert (made.budget, made.seed, made.engine) == (0.1, 0, "auto")
    assert made.quantize.clusters == "auto"
    assert made.target[0].location == "a/target"
    assert made.pool_columns().text == "body"


def test_settings_cannot_be_changed_after_they_were_checked():
    with pytest.raises(ValidationError, match="frozen"):
        build(SMALL).budget = 3


def test_every_shorthand_sets_the_setting_that_it_stands_for():
    values = {
        "embedder": "ngrams",
        "clusters": 7,
        "objective": "exact_path",
        "within_cluster": "exact_count",
    }
    assert set(values) == set(SHORTHANDS)
    made = build({**SMALL, **values}).model_dump()
    for short, value in values.items():
        stage, field = SHORTHANDS[short]
        assert made[stage][field] == value


def test_a_shorthand_may_hold_a_whole_block():
    made = build({**SMALL, "embedder": {"name": "ngrams", "dimension": 32}})
    assert (made.embed.name, made.embed.dimension) == ("ngrams", 32)


def test_a_shorthand_and_its_long_form_with_two_values_are_refused():
    with pytest.raises(ConfigError, match=r"'clusters' \(5\) and 'quantize.clusters' \(6\)"):
        build({**SMALL, "clusters": 5, "quantize": {"clusters": 6}})
    assert build({**SMALL, "clusters": 5, "quantize": {"clusters": 5}}).quantize.clusters == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bugdet": 5}, "unknown key 'bugdet': did you mean 'budget'"),
        ({"cluster": 5}, "unknown key 'cluster': did you mean 'clusters'"),
        ({"columns": {"txt": "a"}}, "unknown key 'columns.txt': did you mean 'text'"),
        ({"quantize": {"max_pases": 3}}, "unknown key 'quantize.max_pases': did you mean 'max_p"),
        ({"pool": {"location": "a", "verison": 3}}, "unknown key 'pool.verison': did you mean 'v"),
        ({"qqqqqq": 1}, "unknown key 'qqqqqq': known keys: .*budget"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(change, message):
    with pytest.raises(ConfigError, match=message):
        build({**SMALL, **change})


def test_an_unknown_key_of_one_target_of_several_is_explained():
    with pytest.raises(ConfigError, match="did you mean 'share'"):
        build({**SMALL, "target": [{"location": "a"}, {"location": "b", "shar": 2}]})


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        build({"target": "t", "seed": -1, "engine": "warp", "quantize": {"max_passes": 0}})
    text = str(caught.value)
    assert text.startswith("4 problem(s) in the settings:")
    assert "'pool' is missing" in text
    assert "'seed'" in text and "(got -1)" in text
    assert "'engine'" in text and "'quantize.max_passes'" in text


@pytest.mark.parametrize(
    ("earlier", "present", "value"),
    [
        ("quantize.neighbours", "quantize.neighbors", 3),
        ("explode.neighbours", "explode.neighbors", 4),
        ("explode.regularisation", "explode.regularization", 0.5),
    ],
)
def test_an_earlier_name_of_a_setting_is_accepted_with_a_warning(earlier, present, value):
    stage, name = earlier.split(".")
    with pytest.warns(FutureWarning, match=f"{earlier} is called {present} now"):
        settings = build({**SMALL, stage: {name: value}})
    assert getattr(getattr(settings, stage), present.split(".")[1]) == value
    with pytest.warns(FutureWarning):
        assert settings == build({**SMALL, **merge({}, [f"{earlier}={value}"])})
    other = {name: value, present.split(".")[1]: value + 1}
    with pytest.warns(FutureWarning), pytest.raises(ConfigError, match="two values"):
        build({**SMALL, stage: other})


def test_an_earlier_value_of_a_setting_is_accepted_with_a_warning(recwarn):
    message = "The value 'tell' of publish.on_drift is called 'warn' now"
    with pytest.warns(FutureWarning, match=message):
        settings = build({**SMALL, "publish": {"on_drift": "tell"}})
    assert settings.publish.on_drift == "warn"
    recwarn.clear()
    assert build({**SMALL, "publish": {"on_drift": "warn"}}) == settings
    assert not [one for one in recwarn if one.category is FutureWarning]


def test_features_may_be_given_as_a_mapping():
    columns = {"id": "id", "features": {"numeric": ["a", "b"], "categorical": ["c"]}}
    made = build({**SMALL, "columns": columns}).columns
    assert made.numeric == ("a", "b") and made.categorical == ("c",)
    assert made.content() == ("a", "b", "c")
    flat = {"id": "id", "numeric": ["a", "b"], "categorical": ["c"]}
    assert build({**SMALL, "columns": flat}).columns == made


def test_several_targets_have_shares():
    made = build({**SMALL, "target": ["a", {"location": "b", "share": 3}]})
    assert [(t.location, t.share) for t in made.target] == [("a", 1.0), ("b", 3.0)]
    with pytest.raises(ConfigError, match="'target'"):
        build({**SMALL, "target": []})


# ---- budgets -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "unit", "amount"),
    [
        (10_000, "rows", 10_000),
        ("10000", "rows", 10_000),
        ("10_000", "rows", 10_000),
        (0.1, "share", 0.1),
        ("0.1", "share", 0.1),
        ("10%", "share", 0.1),
        ("2.5 %", "share", 0.025),
        (1, "rows", 1),
        (1.0, "share", 1.0),
        ("100%", "share", 1.0),
        (50.0, "rows", 50),
        ("200M tokens", "tokens", 200e6),
        ("1.5 B tokens", "tokens", 1.5e9),
        ("12,000 tokens", "tokens", 12_000),
        ("7 token", "tokens", 7),
        ("10k rows", "rows", 10_000),
        ("10k", "rows", 10_000),
        ("1.1k rows", "rows", 1_100),
        ("2 M", "rows", 2_000_000),
        ("1 row", "rows", 1),
        ("10,000", "rows", 10_000),
        ("10 000 rows", "rows", 10_000),
        ("1,234,567", "rows", 1_234_567),
        ("5 percent", "share", 0.05),
        ("0.5 %", "share", 0.005),
        (".5", "share", 0.5),
        ("5e-2", "share", 0.05),
        (" All ", "share", 1.0),
        ("1.0", "share", 1.0),
        ("1", "rows", 1),
    ],
)
def test_budgets_are_rows_shares_percents_or_tokens(given, unit, amount):
    found, number = parse_budget(given)
    assert found == unit
    assert number == pytest.approx(amount)
    build({**SMALL, "budget": given})


@pytest.mark.parametrize(
    ("first", "second"), [(10_000, "10k rows"), (0.05, "5 %"), (1.0, "all"), (10_000, "10,000")]
)
def test_one_budget_is_one_setting_however_it_is_written(first, second):
    assert build({**SMALL, "budget": first}).budget == build({**SMALL, "budget": second}).budget


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (1, "1 row (a budget of 1.0 or 100 % is the whole pool)"),
        (1.0, "the whole pool, 2,000 rows (a budget of 1 is a single row)"),
        ("12.5 %", "12.5 % of the pool, 250 rows"),
        (0.1, "10 % of the pool, 200 rows"),
        ("10k", "10,000 rows"),
        ("2M tokens", "2,000,000 tokens"),
        ("auto", "auto: as many rows as can have the target's distribution"),
    ],
)
def test_a_budget_in_words_tells_a_row_from_the_whole_pool(given, words):
    assert parse_budget(given).in_words(2_000) == words


def test_a_budget_may_be_left_to_the_method():
    unit, amount = parse_budget(" Auto ")
    assert unit == "auto" and math.isnan(amount)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (0, "must be above zero"),
        (0.0, "must be above zero"),
        (-5, "must be above zero"),
        (-0.1, "must be above zero"),
        ("0 tokens", "must be above zero"),
        ("0%", "must be above"),
        ("-3", "must be above zero"),
        (1.5, "neither a whole number nor a share"),
        ("1.5", "neither a whole number nor a share"),
        ("many", "Cannot read budget 'many'"),
        ("1,00", "Cannot read budget '1,00'"),
        ("10,000,00 rows", "Cannot read budget"),
        ("1.5 rows", "Cannot read budget"),
        ("5 k%", "Cannot read budget"),
        ("0 rows", "must be above zero"),
        ("150 %", "neither a whole number nor a share"),
        (True, "Cannot read budget"),
        (float("nan"), "Cannot read budget"),
        (None, "Cannot read"),
        ("nan", "Cannot read budget"),
        ("inf", "Cannot read budget"),
        (float("inf"), "Cannot read budget"),
        ("150%", "share"),
    ],
)
def test_budgets_that_mean_nothing_are_refused_with_examples(given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build({**SMALL, "budget": given})
    assert "0.1" in str(caught.value)


# ---- overrides ---------------------------------------------------------------------------------


def test_overrides_replace_single_settings(folder):
    given = {**SMALL, "clusters": 9, "quantize": {"max_passes": 4}}
    overrides = ["budget=0.25", "quantize.patience=2", "seed=3", "select.source_caps={a: 0.5}"]
    made = load(written(folder, yaml.safe_dump(given)), overrides)
    assert (made.budget, made.quantize.patience, made.quantize.max_passes) == (0.25, 2, 4)
    assert (made.seed, made.select.source_caps) == (3, {"a": 0.5})


def test_an_override_wins_over_either_form_of_a_setting():
    for given in ({"clusters": 9}, {"quantize": {"clusters": 9}}):
        for override in ("clusters=4", "quantize.clusters=4"):
            assert build(merge({**SMALL, **given}, [override])).quantize.clusters == 4


def test_an_override_may_reach_into_an_input_given_as_a_path():
    made = build(merge(SMALL, ["pool.version=3", "pool.columns.text=body"]))
    assert (made.pool.location, made.pool.version) == ("a/pool", 3)
    made = build(merge(SMALL, ["target.version=3"]))
    assert (made.target[0].location, made.target[0].version) == ("a/target", 3)


def test_overrides_leave_the_settings_they_were_given_untouched():
    given = {**SMALL, "quantize": {"max_passes": 4}}
    merge(given, ["quantize.max_passes=1", "columns.source=s"])
    assert given["quantize"] == {"max_passes": 4}
    assert "source" not in given["columns"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("budget", "write key=value"),
        ("=3", "write key=value"),
        ("seed.deep=3", "'seed' holds .*, not a block"),
        ("budget=[1", "Cannot read the value"),
        ("quantize.clusterz=3", "did you mean 'clusters'"),
    ],
)
def test_overrides_that_cannot_be_read_are_clear(folder, override, message):
    file = written(folder, yaml.safe_dump({**SMALL, "seed": 1}))
    with pytest.raises(ConfigError, match=message):
        load(file, [override])


# ---- files -------------------------------------------------------------------------------------


def test_a_key_that_stands_twice_in_a_block_is_refused(tmp_path):
    file = tmp_path / "c.yml"
    file.write_text("pool: a/b\ntarget: c/d\nquantize:\n  clusters: 5\n  clusters: 6\n")
    with pytest.raises(
        ConfigError, match=r"c.yml .*'clusters' stands there twice, again in line 5"
    ):
        load(file)
    file.write_text(
        "pool: &p\n  location: a/b\ntarget:\n  <<: *p\n  share: 2\nembed: {seed: 1}\nselect: {}\n"
    )
    assert load(file).target[0].location == str(tmp_path / "a/b")


def test_files_that_cannot_be_read_are_clear(folder):
    with pytest.raises(ConfigError, match=r"Cannot read the configuration .*gio-spark init"):
        load(folder / "none.yml")
    with pytest.raises(ConfigError, match="Cannot read the configuration"):
        load(folder)
    with pytest.raises(ConfigError, match="not valid YAML"):
        load(written(folder, "pool: [a"))
    with pytest.raises(ConfigError, match="must hold keys and values"):
        load(written(folder, "- a\n- b\n"))
    with pytest.raises(ConfigError, match="must hold keys and values"):
        load(written(folder, ""))
    (folder / "latin.yml").write_bytes("pool: caf\xe9".encode("latin-1"))
    with pytest.raises(ConfigError, match="not valid YAML"):
        load(folder / "latin.yml")


def test_the_example_holds_every_setting_with_a_comment_and_loads_back(folder):
    text = example()
    file = written(folder, text)
    assert load(file) == build(
        {
            "name": file.stem,
            "pool": str(folder / "path/to/pool"),
            "target": str(folder / "path/to/target"),
            "columns": {"id": "id", "text": "text"},
            "workspace": str(folder / "gio-workspace"),
        }
    )
    known = yaml.safe_load(text)
    assert set(known) == set(RunSettings.model_fields)
    for name, field in RunSettings.model_fields.items():
        assert f"# {(field.description or '')[:40]}" in text, name
    for name in ("max_passes", "temperature", "objective", "source_caps", "uri", "event_time"):
        assert name in text


def test_the_digest_changes_with_a_setting_and_only_then():
    first = build(SMALL)
    assert build(SMALL).digest() == first.digest()
    assert build({**SMALL, "seed": 1}).digest() != first.digest()
    assert len(first.digest()) == 16


def test_an_unknown_strategy_is_refused_with_the_known_ones_alone():
    with pytest.raises(ConfigError, match=r"no strategy 'nope'; use default, auto, .*random\.$"):
        build({"pool": "pool", "target": "target", "select": {"strategy": "nope"}})
    with pytest.raises(ConfigError, match=r"sets explode\.within_cluster to 'exact_count'"):
        build(
            {
                "pool": "pool",
                "target": "target",
                "select": {"strategy": "kl_hash"},
                "within_cluster": "density_ratio",
            }
        )
