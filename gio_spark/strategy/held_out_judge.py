"""Judges of selections: small models trained on them and scored on held-out target rows.

Divergences and log losses of ratios do not rank selections; the scores of such models do
(docs/evaluation.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from gio_spark.gime.proxy_training import Task, predict_one, score_kind
from gio_spark.process import no_warnings, one_thread
from gio_spark.strategy.word_pair_model import WordPairs, log_probabilities, word_positions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.strategy.evaluation_dataset import EvaluationDataset
    from gio_spark.strategy.strategy_sample import TargetSplit
    from gio_spark.strategy.text_codes import TextCodes

#: Scoring function of the user: (rows of the dataset, seed) -> score, higher is better.
RowScorer = Callable[["NDArray[np.int64]", int], float]
#: Rows of the sample that a model is trained on, by candidate; a row may be listed repeatedly.
TrainingRows = Mapping[str, "NDArray[np.int64]"]


#: Rows with another label than the most frequent one, and classes, with which labels can judge.
FEWEST_OTHER_LABELS, MOST_CLASSES = 20, 200
#: Standard errors from which on a proxy model is clearly better than a constant prediction.
_CLEAR = 3.0


class Gain(NamedTuple):
    """Gain of a selection over another one, in parts of the loss of random rows.

    Attributes:
        value: The gain.
        influence: (j,) part of each judging row in the error of the gain: its standard error is
            the root of the sum of their squares. None if only the value is known.
    """

    value: float
    influence: NDArray[np.float64] | None


class Judge(Protocol):
    """Interface of a judge."""

    @property
    def title(self) -> str:
        """What it measures, for people."""

    def gains(
        self, split: TargetSplit, training: TrainingRows, base: str, random: str, seed: int
    ) -> dict[str, Gain]:
        """Gain of each candidate over the candidate `base`, in parts of the loss of `random`."""


@dataclass(frozen=True, eq=False)
class ScorerJudge:
    """Judge by a scoring function of the user, which has held-out rows of its own.

    Attributes:
        scorer: (rows of the dataset, seed) -> score, higher is better.
        positions: Row of the dataset that each row of the sample is; None: all rows are sampled.
    """

    scorer: RowScorer
    positions: NDArray[np.int64] | None
    title: str = "own score"

    def gains(
        self, split: TargetSplit, training: TrainingRows, base: str, random: str, seed: int
    ) -> dict[str, Gain]:
        """Differences of the scores over the size of the score of random rows, or their range.

        A score may be near to zero for random rows; the range then keeps splits comparable.
        """
        del split
        positions = self.positions
        scores = {
            name: float(self.scorer(rows if positions is None else positions[rows], seed))
            for name, rows in training.items()
        }
        score_range = max(scores.values()) - min(scores.values())
        scale = max(abs(scores[random]), score_range, float(np.finfo(np.float64).tiny))
        return {name: Gain((score - scores[base]) / scale, None) for name, score in scores.items()}


class _Score(NamedTuple):
    value: float
    influence: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Standard error."""
        return float(np.sqrt(np.square(self.influence).sum()))


def constant_score(kind: str, truth: NDArray[Any]) -> float:
    """Best accuracy or AUC of a prediction that is the same for all rows.

    Example:
        >>> constant_score("accuracy", np.array([1, 1, 2, 1]))
        0.75
        >>> constant_score("auc", np.array([0, 1]))
        0.5
    """
    if kind == "accuracy":
        return float(np.unique(truth, return_counts=True)[1].max() / len(truth))
    return 0.5


def label_problem(labels: NDArray[Any], target_labels: NDArray[Any]) -> str:
    """Why labels cannot judge selections; empty if they can.

    Args:
        labels: (n,) labels of the pool's sample, class codes or numbers.
        target_labels: (m,) labels of the target, coded as those of the pool.

    Example:
        >>> label_problem(np.arange(100) % 2, np.arange(100) % 2)
        ''
        >>> label_problem(np.arange(100) % 2, np.zeros(100))
        'fewer than 20 target rows have another label than the most frequent one'
    """
    for name, values in (("pool", labels), ("target", target_labels)):
        _, counts = np.unique(values, return_counts=True)
        if len(values) - counts.max(initial=0) < FEWEST_OTHER_LABELS:
            return (
                f"fewer than {FEWEST_OTHER_LABELS} {name} rows have another label than the most "
                "frequent one"
            )
    both = np.concatenate([np.asarray(labels), np.asarray(target_labels)])
    if score_kind(both) == "skill":
        return ""
    if len(np.unique(both)) > MOST_CLASSES:
        return f"they are of more than {MOST_CLASSES} classes"
    if np.isin(target_labels, labels).mean() < 0.5:
        return "fewer than half of the target's labels occur in the pool"
    return ""


class LabelJudge:
    """Judge by proxy models that are trained on labels: accuracy, AUC or skill.

    Of a linear model and boosted trees the one counts that scores higher on the selections of
    `base` and `random` together, since it is nearer to what can be learned from the rows. With more
    than two classes only the linear model is trained.
    """

    def __init__(self, sample: EvaluationDataset) -> None:
        """Judge on the labels of a sample and its target; both must be there."""
        # Arrays alone: what datasets share must not refer to them.
        self._vectors, self._target_vectors = sample.vectors, sample.target_vectors
        self._labels = np.asarray(sample.labels)
        self._target_labels = np.asarray(sample.target_labels)
        self._kind = score_kind(np.concatenate([self._labels, self._target_labels]))
        self._proxies = ("linear",) if self._kind == "accuracy" else ("linear", "boosting")
        self.title = {"skill": "skill", "auc": "AUC"}.get(self._kind, "accuracy") + " of a proxy"

    def gains(
        self, split: TargetSplit, training: TrainingRows, base: str, random: str, seed: int
    ) -> dict[str, Gain]:
        """Differences of the scores over 1 less the score of random rows.

        Empty if no model of classes clearly beats a constant prediction: labels that cannot be
        predicted from the rows say nothing of selections. (Numbers are compared all the same: far
        from the target every model may be worse than the target's mean.)
        """
        truth = self._target_labels[split.judging]
        if self._kind == "auc" and len(np.unique(truth)) < 2:
            return {}
        scores: dict[str, dict[str, _Score]] = {
            proxy: {
                name: self._score(split, training[name], proxy, seed) for name in (base, random)
            }
            for proxy in self._proxies
        }
        proxy = max(scores, key=lambda p: sum(score.value for score in scores[p].values()))
        known = scores[proxy]
        for name, rows in training.items():
            if name not in known:
                known[name] = self._score(split, rows, proxy, seed)
        constant = -np.inf if self._kind == "skill" else constant_score(self._kind, truth)
        if all(score.value <= constant + _CLEAR * score.error for score in known.values()):
            return {}
        loss = max(1.0 - known[random].value, 1e-9)
        return {
            name: Gain(
                (score.value - known[base].value) / loss,
                (score.influence - known[base].influence) / loss,
            )
            for name, score in known.items()
        }

    def _score(self, split: TargetSplit, rows: NDArray[np.int64], proxy: str, seed: int) -> _Score:
        judging = split.judging
        task = Task(
            self._vectors,
            self._labels,
            self._target_vectors[judging],
            self._target_labels[judging],
            self._kind,
            proxy,
            small=True,
        )
        with no_warnings(), one_thread():
            predicted, _ = predict_one(task, rows, seed)
        return _SCORES[self._kind](predicted, task.test_labels)


def accuracy_score(predicted: NDArray[Any], truth: NDArray[Any]) -> _Score:
    """Share of right predictions."""
    hit = (predicted == truth).astype(np.float64)
    return _Score(float(hit.mean()), (hit - hit.mean()) / len(hit))


def skill_score(predicted: NDArray[Any], truth: NDArray[Any]) -> _Score:
    """1 less the root mean squared error over the spread of the truth, by the delta method."""
    squares = np.square(np.asarray(predicted, np.float64) - truth)
    error, spread = float(np.sqrt(squares.mean())), max(float(np.std(truth)), 1e-12)
    influence = -(squares - squares.mean()) / (2 * max(error, 1e-12) * spread * len(squares))
    return _Score(1.0 - error / spread, influence)


def auc_score(predicted: NDArray[Any], truth: NDArray[Any]) -> _Score:
    """Area under the ROC curve with its structural components (DeLong et al. 1988).

    Example:
        >>> auc_score(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])).value
        0.75
    """
    from scipy.stats import rankdata

    is_one = np.asarray(truth) == 1
    ones, zeros = int(is_one.sum()), int((~is_one).sum())
    rank = rankdata(predicted)
    above = np.empty(len(rank))
    # Share of the rows of the other class that a row is on the right side of.
    above[is_one] = (rank[is_one] - rankdata(predicted[is_one])) / zeros
    above[~is_one] = 1.0 - (rank[~is_one] - rankdata(predicted[~is_one])) / ones
    value = float(above[is_one].mean())
    return _Score(value, (above - value) / np.where(is_one, ones, zeros))


_SCORES = {"accuracy": accuracy_score, "auc": auc_score, "skill": skill_score}


class TextJudge:
    """Judge by the cross-entropy of target texts, in nats per byte.

    The mean of a model of pairs of words, which sees what a text is about, and of a model of three
    bytes, which sees how it is written. Selections are compared in the unit of the budget: at equal
    rows, or at equal words, for which the longer of two selections is cut.
    """

    def __init__(
        self,
        words: tuple[TextCodes, TextCodes],
        letters: tuple[TextCodes, TextCodes],
        *,
        equal_words: bool,
    ) -> None:
        """Judge on the codes of the words, and of the bytes, of the sample and of the target."""
        self.title = "cross-entropy of words and bytes at equal "
        self.title += "words" if equal_words else "rows"
        self._levels = (words, letters)
        self._pairs = [WordPairs.from_words(pool.code, pool.previous, target.code, target.previous)
                       for pool, target in self._levels]  # fmt: skip
        self._words = words[0].counts if equal_words else np.zeros_like(words[0].counts)
        self._bytes = letters[1].counts

    def gains(
        self, split: TargetSplit, training: TrainingRows, base: str, random: str, seed: int
    ) -> dict[str, Gain]:
        """Differences of the nats per byte over the nats per byte of random rows."""
        del seed
        sizes = self._bytes[split.judging]
        size = max(1.0, float(sizes.sum()))
        losses: dict[tuple[str, int], NDArray[np.float64]] = {}

        def loss(name: str, words: int) -> NDArray[np.float64]:
            used = np.cumsum(self._words[training[name]]) <= words
            key = (name, int(used.sum()))
            if key not in losses:
                losses[key] = self._nats(training[name][used], split.judging)
            return losses[key]

        totals = {name: int(self._words[rows].sum()) for name, rows in training.items()}
        scale = max(float(loss(random, totals[random]).sum()) / size, 1e-9)
        gains = {}
        for name in training:
            words = min(totals[name], totals[base])
            saved = loss(base, words) - loss(name, words)
            value = float(saved.sum()) / size
            gains[name] = Gain(value / scale, (saved - value * sizes) / (size * scale))
        return gains

    def _nats(self, rows: NDArray[np.int64], judging: NDArray[np.int64]) -> NDArray[np.float64]:
        """Mean nats of both models for each judging text, (j,)."""
        nats = np.zeros(len(judging))
        for (pool, target), pairs in zip(self._levels, self._pairs, strict=True):
            used = word_positions(pool.ends, rows)
            judged = word_positions(target.ends, judging)
            log_probability = log_probabilities(
                pool.code[used],
                pairs.pair[used],
                WordPairs(pairs.pair, pairs.first, pairs.held_out[judged]),
                target.code[judged],
                target.previous[judged],
            )
            owner = np.repeat(np.arange(len(judging)), target.counts[judging])
            nats -= np.bincount(owner, log_probability, minlength=len(judging)) / 2
        return nats
