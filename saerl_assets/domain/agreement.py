"""How well a score agrees with a label: rank correlation, R2, area under the ROC curve, Brier score, macro F1.

Belongs here: the measures, each undefined (None) where its definition has no answer, and their means over
folds. Does not belong here: what is scored, and verdicts.

Over folds, ranks are compared within a fold only. Predictions of two folds come from two models, and pooling
them lets the models' different intercepts rank rows: with labels at random that pushes the pooled figure
below chance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Doubles: TypeAlias = NDArray[np.float64]

MIN_ROWS_RANKED = 3


def spearman(score: Doubles, label: Doubles) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None for under 3 rows or a constant side."""
    from scipy.stats import rankdata

    if len(score) < MIN_ROWS_RANKED or not (np.ptp(score) > 0 and np.ptp(label) > 0):
        return None
    a, b = rankdata(score), rankdata(label)
    a, b = a - a.mean(), b - b.mean()
    # Sums instead of dot products: numpy's own order of addition, whatever BLAS is installed.
    return float(np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)))


def partial_spearman(score: Doubles, label: Doubles, held: Doubles) -> float | None:
    """Spearman's correlation of score and label with a third quantity held fixed.

    The correlation of their ranks once what the ranks of `held` explain linearly is taken out of both; None where one
    of them is left without variation.
    """
    both = spearman(score, label)
    a, b = spearman(score, held) or 0.0, spearman(label, held) or 0.0
    rest = (1 - a**2) * (1 - b**2)
    return (both - a * b) / float(np.sqrt(rest)) if both is not None and rest > 1e-12 else None


def rank_auroc(score: Doubles, is_correct: Doubles) -> float | None:
    """Area under the ROC curve by the rank sum (Mann and Whitney, Ann. Math. Stat. 18(1), 1947), ties counted half.

    Args:
        score: float64 [n].
        is_correct: float64 [n], 0 or 1.

    Returns:
        The area in [0, 1]; None if all are of one class.
    """
    from scipy.stats import rankdata

    n_correct = int(is_correct.sum())
    n_wrong = len(is_correct) - n_correct
    if not n_correct or not n_wrong:
        return None
    rank_sum = float(rankdata(score)[is_correct == 1].sum())
    return (rank_sum - n_correct * (n_correct + 1) / 2) / (n_correct * n_wrong)


def macro_f1(found: NDArray[np.int64], truth: NDArray[np.int64], n_classes: int) -> float:
    """F1 of every class that is there, averaged: int64 [n] classes found and true, below `n_classes`."""
    hits = np.bincount(truth[found == truth], minlength=n_classes)
    there = np.bincount(truth, minlength=n_classes)
    total = there + np.bincount(found, minlength=n_classes)
    return float(np.mean(2 * hits[there > 0] / total[there > 0]))


def auroc(score: Doubles, share: Doubles, weight: Doubles) -> float | None:
    """Probability that a correct outcome has a higher score than a wrong one, ties counted half.

    A prompt with share p and weight n stands for n p correct and n (1 - p) wrong outcomes of the same score.
    So even a perfect score stays under 1 where shares are other than 0 and 1.

    Args:
        score: float64 [n].
        share: float64 [n], shares of correct outcomes in [0, 1].
        weight: float64 [n].

    Returns:
        The area in [0, 1]; None if all outcomes are of one class.
    """
    from sklearn.metrics import roc_auc_score

    correct, wrong = weight * share, weight * (1 - share)
    if correct.sum() == 0 or wrong.sum() == 0:
        return None
    outcomes = np.repeat([1, 0], len(score))
    weights = np.concatenate([correct, wrong])
    return float(roc_auc_score(outcomes, np.tile(score, 2), sample_weight=weights))


def brier(probability: Doubles, share: Doubles, weight: Doubles) -> float:
    """Mean squared error of the probability against each outcome (Brier, Mon. Weather Rev. 78(1), 1950)."""
    error = share * (1 - probability) ** 2 + (1 - share) * probability**2
    return float(np.average(error, weights=weight))


def r_squared(prediction: Doubles, label: Doubles, base: Doubles) -> float | None:
    """1 - squared error / squared error of `base`; None if `base` makes no error.

    Args:
        prediction: float64 [n].
        label: float64 [n].
        base: float64 [n], the mean of the labels that each prediction's model was fitted to.
    """
    error_of_base = float(np.sum((label - base) ** 2))
    return 1 - float(np.sum((label - prediction) ** 2)) / error_of_base if error_of_base > 0 else None


def mean_over_folds(measure: Callable[[NDArray[np.int64]], float | None], folds: NDArray[np.int64]) -> float | None:
    """The measure within each fold, averaged by size over the folds where it is defined; None if nowhere.

    Args:
        measure: Takes the row numbers of a fold.
        folds: int64 [n], fold of each row.
    """
    parts = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    defined = [(value, len(rows)) for rows in parts if (value := measure(rows)) is not None]
    if not defined:
        return None
    values, sizes = zip(*defined, strict=True)
    return float(np.average(values, weights=sizes))
