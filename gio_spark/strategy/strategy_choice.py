"""Choice of a strategy by held-out target rows: another than the default must be clearly better."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.stats import norm, t

from gio_spark.settings.strategy_settings import STRATEGIES
from gio_spark.strategy.candidate_strategies import (
    DEFAULT,
    RANDOM,
    candidates,
    try_candidate,
)
from gio_spark.strategy.held_out_judge import (
    Gain,
    Judge,
    LabelJudge,
    RowScorer,
    ScorerJudge,
    TextJudge,
    label_problem,
)
from gio_spark.strategy.methods.shared_work import compute_once
from gio_spark.strategy.strategy_sample import (
    SAMPLE_ROWS,
    TargetSplit,
    is_small_budget,
    split_target,
    strategy_sample,
)
from gio_spark.strategy.text_codes import TEXT_BYTES, TextCodes, byte_codes_of, word_codes_of

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from gio_spark.strategy.evaluation_dataset import EvaluationDataset

#: One-sided confidence of "clearly better".
CONFIDENCE = 0.95
#: Gain over random rows, in parts of their loss, that is worth a selection.
USEFUL_GAIN = 0.02
#: Fewest target rows, and fewest sample rows that the default selects, for a choice to be made.
MIN_TARGET_ROWS, MIN_SELECTED_ROWS = 100, 200
NO_JUDGE = "with vectors alone no judge is known to rank strategies."


@dataclass(frozen=True)
class CandidateFigures:
    """Figures of a candidate, as means over splits, in parts of the loss of random rows.

    Attributes:
        name: Name of the method.
        gain: Gain over the default; 0 for the default, NaN if it failed.
        gain_error: Standard error of the gain, paired over judging rows and splits.
        over_random: Gain over random rows.
        over_random_error: Its standard error.
        seconds: Mean wall time of a selection.
        problem: Why it dropped out; empty otherwise.
    """

    name: str
    gain: float
    gain_error: float
    over_random: float
    over_random_error: float
    seconds: float
    problem: str = ""


@dataclass(frozen=True)
class StrategyChoice:
    """A chosen strategy with the figures behind it.

    Attributes:
        strategy: Name of the chosen method.
        reason: Why, in one sentence.
        warning: What the user should know; empty otherwise.
        judge: What judged; empty if nothing could.
        splits: Number of splits of the target.
        judging_rows: Target rows that judged, of all splits together.
        sample_rows: Rows of the pool's sample.
        figures: A candidate each, best first; empty without a judge.
        seconds: Wall time of the choice.
    """

    strategy: str
    reason: str
    warning: str = ""
    judge: str = ""
    splits: int = 0
    judging_rows: int = 0
    sample_rows: int = 0
    figures: tuple[CandidateFigures, ...] = ()
    seconds: float = 0.0

    def line(self) -> str:
        """Choice and reason on one line."""
        return f"{self.strategy}: {self.reason} {self.warning}".strip()

    def note(self) -> str:
        """Choice, reason and the figures of the best candidates, as one paragraph."""
        if not self.figures:
            return self.line()
        in_run = "a run cannot carry it out yet"
        if self.strategy in STRATEGIES:
            in_run = f"select.strategy: {self.strategy}"
        shown = [c for c in self.figures if not c.problem][:3]
        gains = ", ".join(f"{c.name} {_percent(c.gain, c.gain_error)}" for c in shown)
        return (
            f"{self.line()} In a run: {in_run}. Judge: {self.judge}, {self.judging_rows:,} target "
            f"rows in {self.splits} splits. Gains over {DEFAULT}: {gains}."
        )


@dataclass(frozen=True, eq=False)
class _Trials:
    """Splits of the target with their judge, for all budgets; `reason` where there are none."""

    splits: list[TargetSplit]
    judge: Judge | None
    sample_rows: int = 0
    reason: str = ""
    positions: NDArray[np.int64] | None = None


def choose_strategy(
    dataset: EvaluationDataset,
    budget: int,
    seed: int,
    *,
    names: tuple[str, ...] = (),
    carried_out: tuple[str, ...] | None = None,
    scorer: RowScorer | None = None,
    unit: Literal["rows", "tokens"] = "rows",
    threads: int = 1,
) -> StrategyChoice:
    """Choose the strategy whose selections are best for target rows that it has not seen.

    Candidates select from a bounded sample, without the target rows that judge and their near
    copies. They are judged by the user's scorer, by proxy models where pool and target have labels,
    or by the cross-entropy of the target's texts; with vectors alone nothing is known to rank them,
    and the default is kept. Another strategy wins only if it is clearly better than the default.

    Args:
        dataset: Pool, target and codebook, sorted by hash; `held_*` fields are not read.
        budget: Rows to select.
        seed: Seed.
        names: Candidates; none: `CANDIDATES` and the methods of users.
        carried_out: Candidates that may win; others are tried and their figures shown. None: all.
        scorer: Scoring function of rows of the dataset, in place of labels or texts.
        unit: Unit of the budget that the choice is for; texts are compared at as many rows, or at
            as many words.
        threads: Splits that are tried at the same time; the choice does not depend on it.
    """
    started = time.perf_counter()
    small_budget = is_small_budget(budget, dataset.pool_rows)
    trials = compute_once(
        dataset,
        ("strategy trials", seed, scorer is not None, unit, small_budget),
        lambda: _prepare(
            dataset, seed, unit, small_budget=small_budget, has_scorer=scorer is not None
        ),
    )
    if scorer is not None and trials.splits:
        # Not shared: the function may refer to the dataset, which would then never be freed.
        trials = replace(trials, judge=ScorerJudge(scorer, trials.positions))
    choice = _choose(trials, names, carried_out, budget, seed, threads)
    return replace(choice, sample_rows=trials.sample_rows, seconds=time.perf_counter() - started)


@dataclass(frozen=True)
class _SplitResult:
    """Gains and seconds of the candidates on one split, and the reasons of those that failed."""

    gains: dict[str, Gain]
    seconds: dict[str, float]
    problems: dict[str, str]
    refusal: str = ""


def _try_split(
    trials: _Trials, number: int, tried: Sequence[str], budget: int, seed: int
) -> _SplitResult:
    """Try all candidates on a split; without a result if the default selects too few rows."""
    split, split_seed = trials.splits[number], seed * 101 + number
    training: dict[str, NDArray[np.int64]] = {}
    seconds: dict[str, float] = {}
    problems: dict[str, str] = {}
    count = None
    for name in tried:
        trial = try_candidate(name, split.dataset, budget, count, split_seed)
        if name == DEFAULT:
            if trial.problem or trial.selected < MIN_SELECTED_ROWS:
                few = (
                    f"the sample has {trial.selected:,} of the rows that this budget takes, and a "
                    f"choice needs {MIN_SELECTED_ROWS}."
                )
                return _SplitResult({}, {}, {}, trial.problem or few)
            count = len(trial.rows)
        if trial.problem or not len(trial.rows):
            problems[name] = trial.problem or "It selects no row of the sample."
        else:
            training[name] = split.rows[trial.rows]
            seconds[name] = trial.seconds
    if trials.judge is None or RANDOM in problems:
        return _SplitResult({}, {}, {}, problems.get(RANDOM, ""))
    gains = trials.judge.gains(split, training, DEFAULT, RANDOM, split_seed)
    return _SplitResult(gains, seconds, problems)


def _choose(
    trials: _Trials,
    names: tuple[str, ...],
    carried_out: tuple[str, ...] | None,
    budget: int,
    seed: int,
    threads: int,
) -> StrategyChoice:
    if trials.judge is None:
        return StrategyChoice(DEFAULT, trials.reason)
    tried = candidates(trials.splits[0].dataset, names)  # the default is the first

    def attempt(number: int) -> _SplitResult:
        return _try_split(trials, number, tried, budget, seed)

    with ThreadPoolExecutor(threads) as executor:
        results = list(executor.map(attempt, range(len(trials.splits))))
    for result in results:
        if result.refusal:
            return StrategyChoice(DEFAULT, result.refusal)
    problems = {name: text for result in results for name, text in result.problems.items()}
    judged = [number for number, result in enumerate(results) if result.gains]
    if not judged:
        return StrategyChoice(DEFAULT, "the target's labels cannot be predicted from the rows.")
    results = [results[number] for number in judged]
    judging_rows = sum(len(trials.splits[number].judging) for number in judged)
    gains = {
        name: [result.gains[name] for result in results] for name in tried if name not in problems
    }
    figures = [
        CandidateFigures(
            name,
            *paired_gain(gains[name], gains[DEFAULT]),
            *paired_gain(gains[name], gains[RANDOM]),
            float(np.mean([result.seconds[name] for result in results])),
        )
        for name in gains
    ]
    figures.sort(key=lambda candidate: -candidate.gain)
    # Errors from the spread of few splits alone are those of Student's distribution.
    splits = len(results)
    has_rows = gains[DEFAULT][0].influence is not None
    quantile = norm.ppf(CONFIDENCE) if has_rows else t.ppf(CONFIDENCE, max(1, splits - 1))
    allowed = [c for c in figures if carried_out is None or c.name in carried_out]
    strategy, reason, warning = decide(allowed, float(quantile))
    best = decide(figures, float(quantile))
    if best[0] not in (strategy, *(carried_out or ())):
        reason += f" {best[0]}, which a run cannot carry out, is {best[1]}"
    dropped = [CandidateFigures(n, *(float("nan"),) * 5, text) for n, text in problems.items()]
    return StrategyChoice(
        strategy, reason, warning, trials.judge.title, splits, judging_rows,
        figures=(*figures, *dropped),
    )  # fmt: skip


def _prepare(
    dataset: EvaluationDataset, seed: int, unit: str, *, small_budget: bool, has_scorer: bool
) -> _Trials:
    has_texts = dataset.texts is not None and dataset.target_texts is not None
    labels, target_labels = dataset.labels, dataset.target_labels
    problem = NO_JUDGE
    if labels is not None and target_labels is not None:
        problem = label_problem(labels, target_labels)
        problem = f"the labels cannot judge: {problem}." if problem else ""
    if problem and not (has_scorer or has_texts):
        return _Trials([], None, 0, problem)
    target_rows = len(dataset.target_vectors)
    if target_rows < MIN_TARGET_ROWS:
        reason = f"the target has {target_rows} rows, and a choice needs {MIN_TARGET_ROWS}."
        return _Trials([], None, 0, reason)
    sample, positions = strategy_sample(dataset, seed, small_budget=small_budget)
    words = _text_codes(sample, word_codes_of) if has_texts else None
    splits = split_target(sample, seed, words)
    judge: Judge | None = None
    if not problem and not has_scorer:
        judge = LabelJudge(sample)
    elif words is not None and not has_scorer:
        letters = _text_codes(sample, byte_codes_of)
        judge = TextJudge(words, letters, equal_words=unit == "tokens")
    if not splits:
        return _Trials(
            [],
            None,
            sample.rows,
            "the target's groups are too few, or its rows too alike, to be split.",
        )
    return _Trials(splits, judge, sample.rows, positions=positions)


def _text_codes(
    sample: EvaluationDataset,
    codes_of: Callable[[pa.Array | pa.ChunkedArray | None, int], TextCodes],
) -> tuple[TextCodes, TextCodes]:
    # A larger sample is read to fewer bytes a text, so that its codes take no more memory.
    text_bytes = TEXT_BYTES * SAMPLE_ROWS // max(SAMPLE_ROWS, sample.rows)
    return codes_of(sample.texts, text_bytes), codes_of(sample.target_texts, text_bytes)


def paired_gain(gains: Sequence[Gain], base: Sequence[Gain]) -> tuple[float, float]:
    """Mean over splits of the difference of two gains, and its standard error.

    The error is the larger of two: that of the judging rows, which differ between splits, and that
    of the spread over splits, which includes the draws of the candidates.

    Args:
        gains: Gain of a candidate on each split.
        base: Gain of the other one on the same splits.
    """
    values = np.array([one.value - other.value for one, other in zip(gains, base, strict=True)])
    count = len(values)
    variance = float(values.var(ddof=1)) / count if count > 1 else 0.0
    of_rows = [
        float(np.square(one.influence - other.influence).sum())
        for one, other in zip(gains, base, strict=True)
        if one.influence is not None and other.influence is not None
    ]
    return float(values.mean()), float(np.sqrt(max(variance, sum(of_rows) / count**2)))


def decide(figures: Sequence[CandidateFigures], quantile: float) -> tuple[str, str, str]:
    """Chosen strategy, reason and warning from the figures of the candidates, best first.

    Args:
        figures: Figures of the default, of random rows and of all other candidates.
        quantile: Standard errors from which on a difference is clear.

    Example:
        >>> default = CandidateFigures("kl_ratio_t025", 0.0, 0.0, 0.1, 0.01, 1.0)
        >>> random = CandidateFigures("random", -0.1, 0.01, 0.0, 0.0, 0.1)
        >>> better = CandidateFigures("kl_hash", 0.05, 0.01, 0.15, 0.02, 0.1)
        >>> decide([better, default, random], 1.64)[0]
        'kl_hash'
        >>> decide([default, random], 1.64)[0]
        'kl_ratio_t025'
    """
    by_name = {candidate.name: candidate for candidate in figures}
    default, random = by_name[DEFAULT], by_name[RANDOM]
    others = [c for c in figures if c.name not in (DEFAULT, RANDOM)]
    winners = [c for c in others if c.gain > quantile * c.gain_error and c.over_random > 0]
    if winners:
        best = max(winners, key=lambda c: c.gain)
        gain = _percent(best.gain, best.gain_error)
        return best.name, f"better than the default by {gain} of the loss of random rows.", ""
    over_random = _percent(default.over_random, default.over_random_error)
    if default.over_random > quantile * default.over_random_error:
        reason = (
            f"no other strategy is clearly better; it is better than random rows by {over_random}."
        )
        return DEFAULT, reason, ""
    if random.gain > quantile * random.gain_error:
        gain = _percent(random.gain, random.gain_error)
        reason = f"better than the default by {gain}, and nothing is better than random rows."
        return RANDOM, reason, "No strategy helps: consider a better target or embedder."
    largest = max(c.over_random + quantile * c.over_random_error for c in (default, *others))
    if largest < USEFUL_GAIN:
        reason = f"nothing is better than random rows by {USEFUL_GAIN:.0%} of their loss or more."
        return RANDOM, reason, "No strategy helps: consider a better target or embedder."
    warning = (
        f"It is not clearly better than random rows ({over_random} of their loss); more target "
        "rows would tell."
    )
    return DEFAULT, "no other strategy is clearly better.", warning


def _percent(value: float, error: float) -> str:
    return f"{100 * value:.1f} ± {100 * error:.1f} %"
