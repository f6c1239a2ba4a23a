"""Whether other temperatures, ratios and features select better than the default, paired.

    python benchmarks/bench_ratio.py --data PATH [--tasks adult,spelling] [--seeds 0,1]
        [--variants spread,word_pairs] [--store FOLDER] [--show]

Tasks are those of bench_quality.py and two of texts whose good rows are known: `spelling` (half of
the pool has errors of typists, as the target has, half has random letters) and `narrow` (300 target
rows of one domain, with 1,650 more in a pool of 60,000). All variants fill the same quotas and use
the same noise. Scores are kept in benchmarks/results/ratio_variants.csv; a rerun computes those
that are missing. Prints the share of the headroom over random rows and the share of good rows, both
less those of the default, means over seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import quality_tasks
from bench_quality import CELLS, dataset_of, default_store
from quality_tasks import TARGET, Options, QualityTask
from tasks import data_folder

from gio_spark import explode
from gio_spark.embed import make_embedder
from gio_spark.engine import encode_vectors
from gio_spark.evaluate.measure_inputs import prepare_measure_inputs
from gio_spark.evaluate.measures import MEASURES
from gio_spark.explode.rank_keys import gumbel
from gio_spark.settings.columns import Columns
from gio_spark.settings.embed import EmbedSettings
from gio_spark.settings.explode import ExplodeSettings
from gio_spark.strategy.evaluation_dataset import EvaluationDataset
from gio_spark.strategy.methods import run_method
from gio_spark.strategy.methods.cluster_plans import cluster_plan
from gio_spark.strategy.methods.density_ratios import hash53, log_ratio
from gio_spark.strategy.methods.hash_draws import generator, row_keys, top_of_clusters, uniform
from gio_spark.strategy.methods.text_corpus import text_array

SCORES = CELLS.with_name("ratio_variants.csv")
BUDGETS = {"narrow": (0.01375, 0.0275, 0.055)}
USUAL_BUDGETS = (0.025, 0.1, 0.25)
TASKS = (
    "images_damaged,images_faint,images_skewed,adult,bank,weather,text_a_static,text_b_static,"
    "text_c_static,spelling,narrow"
)
METHODS = ("random", "oracle")
DEFAULT = "default"
# Variant -> (ratio, temperature as a function of the ratio's standard deviation in each cluster,
# the median of it over rows, and the one of all clusters pooled).
VARIANTS = {
    DEFAULT: ("plain", lambda each, median, pooled: 0.25),
    "strict": ("plain", lambda each, median, pooled: 0.0),
    "warm": ("plain", lambda each, median, pooled: 0.5),
    "spread": ("plain", lambda each, median, pooled: 0.25 * each),
    "capped_spread": ("plain", lambda each, median, pooled: np.minimum(0.25, 0.25 * each)),
    "median_spread": ("plain", lambda each, median, pooled: 0.25 * each / median),
    "pooled_spread": ("plain", lambda each, median, pooled: 0.25 * pooled),
    "pooled_spread_half": ("plain", lambda each, median, pooled: 0.5 * pooled),
    "conditional": ("conditional", lambda each, median, pooled: 0.25),
    "conditional_mean": ("plain+conditional", lambda each, median, pooled: 0.25),
    "word_pairs": ("word_pairs", lambda each, median, pooled: 0.25),
    "words_alone": ("words_alone", lambda each, median, pooled: 0.25),
    "words_mean": ("plain+words_alone", lambda each, median, pooled: 0.25),
    "vectors_mean": ("plain+vectors", lambda each, median, pooled: 0.25),
}
OF_TEXTS = {"word_pairs", "words_alone", "words_mean", "vectors_mean"}
FEATURES = {
    "word_pairs": ExplodeSettings(word_ngrams=2),
    "words_alone": ExplodeSettings(word_ngrams=2, char_ngrams=()),
}

# -- tasks ----------------------------------------------------------------------------------------

_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBORS = {
    letter: [
        other
        for near_row in range(max(0, row - 1), min(3, row + 2))
        for place, other in enumerate(_KEYBOARD[near_row])
        if abs(place - column) <= 1 and other != letter
    ]
    for row, letters in enumerate(_KEYBOARD)
    for column, letter in enumerate(letters)
}
_ERROR_SHARE = 0.06
_DOMAINS = ("novel_hardy", "wikidump", "tatoeba_eng", "banking77", "novel_james")


def misspelt(text: str, *, typist: bool, rng: np.random.Generator) -> str:
    """Return a text with errors in 6 % of its letters: those of a typist, or random letters."""
    characters = list(text)
    places = [i for i, c in enumerate(text) if c.lower() in _NEIGHBORS]
    count = min(len(places), max(1, round(len(places) * _ERROR_SHARE)))
    for place in rng.choice(places, count, replace=False) if places else ():
        letter, kind = text[place], rng.random()
        other = chr(ord("a") + rng.integers(26))
        if kind < 0.4:
            characters[place] = rng.choice(_NEIGHBORS[letter.lower()]) if typist else other
        elif kind < 0.6:
            characters[place] = letter + (letter if typist else other)
        elif kind < 0.8:
            characters[place] = ""
        elif place + 1 < len(text):
            pair = characters[place], characters[place + 1]
            characters[place + 1], characters[place] = pair
    return "".join(characters)


def spelling(data: Path, seed: int, options: Options) -> EvaluationDataset:
    """Errors of typists in target and half of the pool, random letters in the other half."""
    rng = np.random.default_rng([seed, 31])
    texts = quality_tasks.pool_texts(data)
    usable = np.array([i for i in rng.permutation(len(texts)) if 20 <= len(texts[i]) <= 400])
    parts = np.split(usable[: 30_000 + TARGET + 4_000], [30_000, 30_000 + TARGET])
    good = rng.permutation(np.arange(30_000) < 15_000)
    are_typists = (good, np.ones(len(parts[1]), bool), np.ones(len(parts[2]), bool))
    spoilt = [
        pa.array([misspelt(texts[i], typist=t, rng=rng) for i, t in zip(part, own, strict=True)])
        for part, own in zip(parts, are_typists, strict=True)
    ]
    embedder = make_embedder(EmbedSettings(name="wordllama"), Columns(text="text")).prepare()
    vectors = [embedder.embed(pa.table({"text": part}))[0] for part in spoilt]
    return quality_tasks._arena(
        *vectors, seed, options, texts=spoilt[0], target_texts=spoilt[1], held_texts=spoilt[2],
        good=good.astype(float),
    )  # fmt: skip


def narrow(data: Path, seed: int, options: Options) -> EvaluationDataset:
    """One domain, of which the target has 300 rows and the pool 1,650 of 60,000."""
    domains, texts = quality_tasks._texts(data)
    rng = np.random.default_rng([seed, 32])
    domain = _DOMAINS[seed % len(_DOMAINS)]
    own = rng.permutation(np.flatnonzero(domains == domain))
    other = rng.permutation(np.flatnonzero(domains != domain))
    target, true, held = own[:300], own[300:1_950], own[1_950:9_950]
    pool = rng.permutation(np.r_[true, other[: 60_000 - len(true)]])
    whole = quality_tasks._embedded(data, "wordllama")
    of_texts = [pa.array(texts[rows], pa.string()) for rows in (pool, target, held)]
    return quality_tasks._arena(
        *(whole[rows] for rows in (pool, target, held)), seed, options,
        texts=of_texts[0], target_texts=of_texts[1], held_texts=of_texts[2],
        good=(domains[pool] == domain).astype(float),
    )  # fmt: skip


def tasks() -> dict[str, QualityTask]:
    """Return the tasks of the bake-off, and those of texts whose good rows are known."""
    measures = ("cross_entropy",)
    own = [
        QualityTask(build.__name__, build, "cross_entropy", measures, str(build.__doc__))
        for build in (spelling, narrow)
    ]
    return {**quality_tasks.all_tasks(), **{task.name: task for task in own}}


# -- ratios ---------------------------------------------------------------------------------------


class Ratios:
    """Log density ratios (n,) of the pool rows of a dataset, by name."""

    def __init__(self, dataset: EvaluationDataset, seed: int) -> None:
        self.dataset, self.seed = dataset, seed
        self.by_name = {"plain": log_ratio(dataset, seed, "classifier").log_ratio}

    def get(self, name: str) -> np.ndarray:
        """Return a ratio, or the mean of several with a plus between their names."""
        for part in name.split("+"):
            if part not in self.by_name:
                self.by_name[part] = self._fit(part)
        return np.mean([self.by_name[part] for part in name.split("+")], axis=0)

    def _fit(self, name: str) -> np.ndarray:
        dataset, settings = self.dataset, FEATURES.get(name, ExplodeSettings())
        order = row_keys(dataset, self.seed, "fit")
        rows = settings.fit_rows
        if name == "conditional":
            # Drawn with the target's share of each cluster, so that clusters are not told apart.
            shares = dataset.target_mass / np.maximum(dataset.sizes / dataset.rows, 1e-9)
            log_shares = np.clip(np.log(np.maximum(shares, 1e-9)), -8, 8)[dataset.cluster]
            draws = uniform(dataset, self.seed, "conditional sample")
            order, rows = np.log(-np.log(draws)) - log_shares, min(rows, dataset.rows // 3)
        sampled = np.sort(np.argsort(order, kind="stable")[:rows])
        folds = hash53(dataset, self.seed, "fold")
        in_text = dataset.texts is not None and name != "vectors"
        pool = text_array(dataset.texts) if in_text else encode_vectors(dataset.vectors)
        target = text_array(dataset.target_texts) if in_text else encode_vectors(
            dataset.target_vectors
        )  # fmt: skip
        target_order = generator(self.seed, "target fold").permutation(len(target))
        fit = explode.fit(
            explode.RatioSample(target, np.argsort(target_order).astype(np.int64)),
            explode.RatioSample(pool.take(pa.array(sampled)), folds[sampled]),
            kind="text" if in_text else "vector", settings=settings,
        )  # fmt: skip
        return fit.model.log_ratio(pool, folds).astype(np.float64)


def spreads(ratio: np.ndarray, cluster: np.ndarray, clusters: int) -> tuple:
    """Return the ratio's spread in each cluster (K,), the median over rows, and the pooled one.

    Spreads of small clusters are drawn towards the pooled one, as if it had ten rows.
    """
    rows = np.bincount(cluster, minlength=clusters)
    mean = np.bincount(cluster, ratio, minlength=clusters) / np.maximum(rows, 1)
    squares = np.bincount(cluster, (ratio - mean[cluster]) ** 2, minlength=clusters)
    pooled = float(np.sqrt(squares.sum() / rows.sum()))
    each = np.sqrt((squares + 10 * pooled**2) / (rows + 10))
    return each, float(np.median(each[cluster])), pooled


# -- scores ---------------------------------------------------------------------------------------


def scores_of(task: QualityTask, dataset: EvaluationDataset, seed: int, names: list) -> list[dict]:
    """Return score and share of good rows of methods and variants, at each budget."""
    inputs, ratios = prepare_measure_inputs(dataset), Ratios(dataset, seed)
    noise = gumbel(hash53(dataset, seed, "explode"))
    results = []
    for budget in BUDGETS.get(task.name, USUAL_BUDGETS):
        count = round(budget * dataset.rows)
        take = cluster_plan(dataset, "budgeted_kl", count, seed)[0]
        for name in names:
            if name in METHODS:
                rows = run_method(name, dataset, count, seed).rows
            else:
                ratio_name, temperature = VARIANTS[name]
                ratio = ratios.get(ratio_name)
                each = temperature(*spreads(ratio, dataset.cluster, len(dataset.centroids)))
                scale = np.broadcast_to(each, len(dataset.centroids))[dataset.cluster]
                rows = top_of_clusters(dataset.cluster, take, ratio + scale * noise, None)
            value = MEASURES[task.score].compute(dataset, inputs, rows, seed)
            good = float(np.mean(dataset.good[rows] > _bad(dataset.good)))
            results.append({"task": task.name, "seed": seed, "budget": budget, "variant": name,
                            "value": value, "good": good})  # fmt: skip
    return results


def _bad(good: np.ndarray) -> float:
    """Return the oracle's value of bad rows; where it grades all rows, none is bad."""
    worst = float(good.min())
    return worst if worst in (0.0, -np.inf) else -np.inf


def differences(scores: pd.DataFrame) -> pd.DataFrame:
    """Return what each variant has more than the default, a row per task: headroom, good rows."""
    sign = {t: 1 if MEASURES[task.score].higher_is_better else -1 for t, task in tasks().items()}
    gain = scores.assign(gain=scores["value"] * scores["task"].map(sign))
    by_budget = gain.pivot_table(index=["task", "seed", "budget"], columns="variant")
    gains = by_budget["gain"].sub(by_budget["gain"]["random"], axis=0)
    by_seed = gains.groupby(["task", "seed"]).sum(min_count=1)
    shares = by_seed.div(by_seed["oracle"], axis=0)
    good = by_budget["good"].groupby(["task", "seed"]).mean()
    names = [name for name in VARIANTS if name in shares and name != DEFAULT]
    tables = [
        part.sub(part[DEFAULT], axis=0)[names].groupby("task").mean() for part in (shares, good)
    ]
    return pd.concat(tables, keys=["headroom", "good rows"]).round(3)


def main() -> None:
    """Compute what is missing and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data")
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--seeds", default="0,1,2,3")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--store", type=Path, default=default_store())
    parser.add_argument("--scores", type=Path, default=SCORES)
    parser.add_argument("--show", action="store_true", help="compute nothing")
    options = parser.parse_args()
    keys = ["task", "seed", "variant"]
    scores = pd.read_csv(options.scores) if options.scores.exists() else pd.DataFrame(columns=keys)
    for seed in [] if options.show else map(int, options.seeds.split(",")):
        for name in options.tasks.split(","):
            task, data = tasks()[name], data_folder(options.data)
            dataset = dataset_of(task, data, seed, Options(), options.store)
            stored = set(scores.loc[(scores["task"] == name) & (scores["seed"] == seed), "variant"])
            missing = [
                variant
                for variant in (*METHODS, *options.variants.split(","))
                if variant not in stored and (dataset.texts is not None or variant not in OF_TEXTS)
            ]
            if missing:
                new = pd.DataFrame(scores_of(task, dataset, seed, missing))
                scores = pd.concat([scores, new], ignore_index=True) if len(scores) else new
                scores = scores.sort_values([*keys, "budget"], ignore_index=True)
                scores.to_csv(options.scores, index=False, float_format="%.6g")
                print(f"  {name}, seed {seed}: {len(missing)} variants", flush=True)
    print(differences(scores).to_string())


if __name__ == "__main__":
    main()
