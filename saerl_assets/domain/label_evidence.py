"""Evidence on one label: every predictor on the same rows and folds, with intervals, and what they say together.

Belongs here: cross-validated predictions, measures, bootstrap, label budgets, the verdict in words. Does not belong
here: what is foretold (label_values), fitting (kernel_ridge), all labels of a version (evidence).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from saerl_assets.domain.agreement import (
    macro_f1,
    mean_over_folds,
    partial_spearman,
    r_squared,
    rank_auroc,
    spearman,
)
from saerl_assets.domain.folds import N_OUTER_FOLDS, hash_fractions, held_out_parts, outer_folds
from saerl_assets.domain.kernel_ridge import Fitted, fit_kernel_ridge
from saerl_assets.domain.label_values import Kind, LabelValues, coded, targets_of
from saerl_assets.domain.predictors import CHOOSABLE, COMBINED
from saerl_assets.domain.questions import exchanged, members, numbered, redrawn
from saerl_assets.domain.spec import EvidenceSpec
from saerl_assets.domain.threads import one_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Doubles: TypeAlias = NDArray[np.float64]
    Integers: TypeAlias = NDArray[np.int64]

BUDGETS = (100, 200, 500, 1_000, 2_000)
ON_THE_CURVE = ("length", "tfidf", "dense_mean", "random_sae", "sae_max")
CHEAP = ("length", "tfidf", "metadata")
"""What costs nothing, and so is held against the SAE in the verdict."""
CONFIDENCE = (2.5, 97.5)
MARGIN_PERCENTILE = 95.0
N_PERMUTATIONS = 300

_MEASURES: dict[Kind, tuple[str, str]] = {
    "numeric": ("spearman", "r2"),
    "binary": ("auroc", "brier"),
    "class": ("macro_f1", "accuracy"),
}
_SAID = {"spearman": "Spearman correlation", "auroc": "AUROC", "macro_f1": "macro F1"}
_NAMES = {"length": "plain prompt length", "tfidf": "words (TF-IDF)", "metadata": "the source's own columns"}


@dataclass(frozen=True, eq=False)
class _Measured:
    """One predictor on one label."""

    score: Doubles
    """[n] for ranking; [n, n_classes] for classes."""
    probability: Doubles
    """[n] predicted value or probability."""
    value: float
    draws: Doubles = field(repr=False, default_factory=lambda: np.zeros(0))
    """The measure on bootstrap samples of the questions, the same samples for every predictor."""


class LabelEvidence:
    """What each predictor is worth on one label; see `evidence.weigh_evidence`."""

    def __init__(
        self, label: LabelValues, questions: Sequence[str], lengths: Doubles, spec: EvidenceSpec, seed: int
    ) -> None:
        self._label, self._lengths, self._spec, self._seed = label, lengths, spec, seed
        self._folds, self._groups = outer_folds(questions, seed=seed), numbered(questions)
        self._parts = [
            members(np.flatnonzero(self._folds == fold), self._groups) for fold in np.unique(self._folds)
        ]  # of each fold the rows of each question
        self._order = np.argsort(hash_fractions(questions, seed=seed, purpose="label budget"), kind="stable")
        self._classes, self._codes = coded(label)
        self._targets = targets_of(label, self._classes, self._codes)
        self._rng = np.random.default_rng(seed)
        self._samples = [self._resampled() for _ in range(spec.n_bootstrap)]
        self._kernels: dict[str, list[Doubles]] = {}
        self._measured: dict[str, _Measured] = {}

    def measure(self, name: str, kernels: list[Doubles]) -> None:
        """Cross-validates one predictor."""
        score = np.zeros_like(self._targets)
        probability = np.zeros_like(self._targets)
        with one_thread():
            for train, test in held_out_parts(self._folds):
                fitted = fit_kernel_ridge(kernels, self._targets, train, test, self._groups)
                score[test] = self._scored(fitted.predictions, train)
                probability[test] = self._calibrated(fitted, train)
        found = _Measured(score, probability[:, 0], self._value(score, np.arange(len(score))))
        draws = np.array([self._value(score, rows) for rows in self._samples])
        self._measured[name] = _Measured(score, found.probability, found.value, draws)
        if name in (*ON_THE_CURVE, *COMBINED):
            self._kernels[name] = kernels

    def combine(self) -> None:
        """Measures the predictor that puts the best of each kind side by side: the sum of their kernels."""
        parts = [self._kernels[name] for name in COMBINED if self._kernels.get(name)]
        if len(parts) > 1:
            sums = [np.sum([kernels[place] for kernels in parts], axis=0) / len(parts) for place in (0, -1)]
            self.measure("combined", sums)

    def rows(self) -> list[dict[str, object]]:
        """Rows of signal_evidence."""
        made: list[dict[str, object]] = []
        for name, found in self._measured.items():
            low, high = _interval(found.draws)
            made.append(
                {
                    "label": self._label.name,
                    "kind": self._label.kind,
                    "predictor": name,
                    "n_rows": len(self._folds),
                    "measure": _MEASURES[self._label.kind][0],
                    "value": _known(found.value),
                    "low": low,
                    "high": high,
                    "second_measure": _MEASURES[self._label.kind][1],
                    "second_value": _known(self._second(found)),
                    "given_length": self._given_length(found),
                    **self._over(found, "length", "over_length"),
                    **self._over(found, "dense_mean", "over_dense"),
                    **self._behind_best(name),
                }
            )
        return made

    def curve(self) -> list[dict[str, object]]:
        """Rows of evidence_curve: some predictors with ever more labels, on the same held-out prompts."""
        made: list[dict[str, object]] = []
        for name in ON_THE_CURVE:
            for budget in BUDGETS:
                if name not in self._kernels or budget > len(self._folds) * (N_OUTER_FOLDS - 1) / N_OUTER_FOLDS:
                    continue
                score = np.zeros_like(self._targets)
                with one_thread():
                    for train, test in held_out_parts(self._folds):
                        few = np.sort(self._order[np.isin(self._order, train)][:budget])
                        fitted = fit_kernel_ridge(self._kernels[name], self._targets, few, test, self._groups)
                        score[test] = self._scored(fitted.predictions, few)
                made.append(
                    {
                        "label": self._label.name,
                        "predictor": name,
                        "n_labels": budget,
                        "measure": _MEASURES[self._label.kind][0],
                        "value": _known(self._value(score, np.arange(len(score)))),
                    }
                )
        return made

    def verdict(self) -> dict[str, object]:
        """The row of evidence_verdicts. It weighs `sae_max` alone: the best of several would look too good."""
        known = {name: found.value for name, found in self._measured.items() if np.isfinite(found.value)}
        best = max(known, key=known.__getitem__)
        sae, dense = self._measured["sae_max"], self._measured["dense_mean"]
        cheap = max((name for name in CHEAP if name in known), key=known.__getitem__)
        over_dense, over_cheap = _interval(sae.draws - dense.draws), _interval(sae.draws - self._measured[cheap].draws)
        said = _said(self._label, known, cheap, over_dense, over_cheap)
        weighed = [name for name in ("sae_max", "dense_mean", *CHEAP) if name in known]
        chance = self._chance(weighed)
        if max(known[name] for name in weighed) <= chance:
            words = f"Do not use this signal: nothing foretells it better than chance, which makes up to {chance:.3f}."
            return verdict_row(self._label, "do_not_use", best, f"{words} {said}")
        if (over_cheap[0] or 0.0) <= 0:
            words = f"The SAE is not shown to beat {_NAMES.get(cheap, cheap)}, which costs nothing. {said}"
            return verdict_row(self._label, "cheap_is_as_good", best, words)
        if (over_dense[1] or 0.0) < 0:
            return verdict_row(self._label, "use_dense", best, f"The dense state is better here. {said}")
        if (over_dense[0] or 0.0) <= 0:
            return verdict_row(self._label, "dense_is_as_good", best, f"The dense state is as good here. {said}")
        return verdict_row(self._label, "use_sae", best, f"Use the SAE. {said}{self._against_random()}")

    def _against_random(self) -> str:
        """What training the SAE adds, where that is not shown to be anything."""
        if "random_sae" not in self._measured:
            return ""
        low, high = _interval(self._measured["sae_max"].draws - self._measured["random_sae"].draws)
        if low is None or high is None or low > 0:
            return ""
        return f" An SAE of random weights may do as well: the difference is {low:+.3f} to {high:+.3f}."

    def _chance(self, weighed: Sequence[str]) -> float:
        """What the best of some predictors is worth on labels that tell nothing, with 95% confidence.

        The predictions stay and the labels are permuted within folds, those of one question together; as the best of
        several is held against it, it is the largest value of each permutation that counts (Westfall and Young,
        Resampling-Based Multiple Testing, 1993). That holds for any measure, also one whose value for a guess depends
        on what is guessed: macro F1 of random guesses is higher than that of the most frequent class alone.

        With the predictions kept, folds vary independently. In truth what fold A teaches of B is what B teaches of A,
        y_A' K y_B both times, so their sum has twice the variance: deviations from the mean are as many times larger.
        """
        rng = np.random.default_rng(self._seed)
        places = np.concatenate([row for parts in self._parts for row in parts])
        scores = [self._measured[name].score for name in weighed]
        values = np.zeros((N_PERMUTATIONS, len(scores)))
        for draw in range(N_PERMUTATIONS):
            told = np.concatenate([exchanged(parts, rng) for parts in self._parts])
            values[draw] = [self._value(score, places, told) for score in scores]
        mean = values.mean(axis=0)
        return float(np.percentile(np.max(mean + np.sqrt(2.0) * (values - mean), axis=1), MARGIN_PERCENTILE))

    def _value(self, score: Doubles, rows: Integers, told: Integers | None = None) -> float:
        """The label's measure within each fold, averaged by size; not a number where it is nowhere defined.

        Args:
            score: [n] or [n, n_classes] of all rows.
            rows: Those that are measured.
            told: The rows whose labels they are held against; their own by default.
        """
        of = rows if told is None else told
        found = mean_over_folds(lambda chosen: self._of(score[rows[chosen]], of[chosen]), self._folds[rows])
        return np.nan if found is None else found

    def _of(self, score: Doubles, rows: Integers) -> float | None:
        if self._label.kind == "class":
            return macro_f1(score.argmax(axis=1), self._codes[rows], score.shape[1])
        if self._label.kind == "binary":
            return rank_auroc(score[:, 0], self._targets[rows, 0])
        # a score that is the same for all ranks nothing: it is worth 0, and not unknown
        return spearman(score[:, 0], self._targets[rows, 0]) if np.ptp(score) > 0 else 0.0

    def _second(self, found: _Measured) -> float:
        goal = self._targets[:, 0]
        if self._label.kind == "class":
            return float(np.mean(found.score.argmax(axis=1) == self._codes))
        if self._label.kind == "binary":
            return float(np.mean(np.square(found.probability - goal)))
        base = np.zeros(len(goal))
        for train, test in held_out_parts(self._folds):
            base[test] = goal[train].mean()
        return r_squared(found.score[:, 0], goal, base) or 0.0

    def _given_length(self, found: _Measured) -> float | None:
        """Partial rank correlation within folds; for classes there is none."""
        if self._label.kind == "class":
            return None
        score, goal = found.score[:, 0], self._targets[:, 0]
        return mean_over_folds(lambda rows: partial_spearman(score[rows], goal[rows], self._lengths[rows]), self._folds)

    def _scored(self, predictions: Doubles, train: Integers) -> Doubles:
        """Predictions to rank or choose by: of a class how far it is above its share, to give rare ones a chance."""
        if self._label.kind != "class":
            return predictions
        share = self._targets[train].mean(axis=0)
        return np.asarray((predictions - share) / np.sqrt(np.maximum(share * (1 - share), 1e-9)))

    def _calibrated(self, fitted: Fitted, train: Integers) -> Doubles:
        """Predictions as they are; for two classes as probabilities, learned from predictions of rows left out."""
        if self._label.kind != "binary" or fitted.kernel < 0:
            return fitted.predictions
        from sklearn.linear_model import LogisticRegression

        scale = float(fitted.left_out.std()) or 1.0
        curve = LogisticRegression(C=100.0).fit(fitted.left_out / scale, self._targets[train, 0])
        return np.asarray(curve.predict_proba(fitted.predictions / scale)[:, 1:], dtype=np.float64)

    def _over(self, found: _Measured, base: str, column: str) -> dict[str, float | None]:
        if base not in self._measured:
            return {column: None, f"{column}_low": None, f"{column}_high": None}
        low, high = _interval(found.draws - self._measured[base].draws)
        return {
            column: _known(found.value - self._measured[base].value),
            f"{column}_low": low,
            f"{column}_high": high,
        }

    def _behind_best(self, name: str) -> dict[str, float | None]:
        """How far behind the best predictor this one is, and how far it may be by chance if it is as good.

        The margin is that of multiple comparisons with the best (Hsu, Ann. Stat. 9(5), 1981): the best of many is
        likely to have been lucky, so a gap, in units of its own spread, is held against the largest that the bootstrap
        makes over all predictors where there is none. The source's own columns are held to none, since they may be
        made from the label.
        """
        found = self._measured[name]
        rivals = [each for other, each in self._measured.items() if other in CHOOSABLE and np.isfinite(each.value)]
        if name == "metadata" or not rivals or not np.isfinite(found.value):
            return {"behind_best": None, "behind_best_margin": None}
        best = max(rivals, key=lambda rival: rival.value)
        by_chance = np.array([each.draws - found.draws - (each.value - found.value) for each in rivals])
        by_chance = by_chance[:, np.isfinite(by_chance).all(axis=0)]
        margin = None
        if by_chance.shape[1] > len(found.draws) / 2:
            spread = by_chance.std(axis=1)
            differ = spread > 0
            largest = np.max(by_chance[differ] / spread[differ, None], axis=0, initial=0.0)
            margin = float(np.percentile(largest, MARGIN_PERCENTILE) * spread[rivals.index(best)])
        return {"behind_best": best.value - found.value, "behind_best_margin": margin}

    def _resampled(self) -> Integers:
        """Rows drawn with replacement within every fold, those of one question together."""
        return np.concatenate([redrawn(parts, self._rng) for parts in self._parts])


def _interval(draws: Doubles) -> tuple[float | None, float | None]:
    known = draws[np.isfinite(draws)]
    if len(known) < len(draws) / 2 or not len(known):
        return None, None
    low, high = np.percentile(known, CONFIDENCE)
    return float(low), float(high)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _said(
    label: LabelValues,
    known: Mapping[str, float],
    cheap: str,
    over_dense: tuple[float | None, float | None],
    over_cheap: tuple[float | None, float | None],
) -> str:
    def between(interval: tuple[float | None, float | None]) -> str:
        return f"{interval[0]:+.3f} to {interval[1]:+.3f}" if None not in interval else "unknown"

    random = f", a random SAE {known['random_sae']:.3f}" if "random_sae" in known else ""
    return (
        f"Held-out {_SAID[_MEASURES[label.kind][0]]} on {len(label.rows):,} prompts: SAE {known['sae_max']:.3f}, dense "
        f"state {known['dense_mean']:.3f}{random}, {_NAMES.get(cheap, cheap)} {known[cheap]:.3f}. SAE minus dense: "
        f"{between(over_dense)}; SAE minus {_NAMES.get(cheap, cheap)}: {between(over_cheap)} (95% intervals)."
    )


def verdict_row(label: LabelValues, verdict: str, best: str | None, words: str) -> dict[str, object]:
    """A row of evidence_verdicts."""
    return {
        "label": label.name,
        "verdict": verdict,
        "best_predictor": best,
        "n_rows": len(label.rows),
        "explanation": words,
    }
