"""Labelled rows that a probe is fitted to.

Belongs here: rows with their shares of correct outcomes and weights, balancing the outcomes, choosing a strength of
regularisation by inner folds. Does not belong here: what is fitted (logistic_regression, mlp).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

import numpy as np

from saerl_assets.domain.folds import held_out_parts, tuning_folds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saerl_assets.domain.features import FloatMatrix

    Doubles: TypeAlias = NDArray[np.float64]
    Integers: TypeAlias = NDArray[np.int64]


class Model(Protocol):
    """What was fitted."""

    def predict(self, matrix: FloatMatrix) -> Doubles:
        """A score for each row, float64 [n], higher for what is more likely to be correct."""


AnyModel = TypeVar("AnyModel", bound=Model)


@dataclass(frozen=True)
class Examples:
    """Rows with a share p of correct outcomes and a weight n: n p correct and n (1 - p) wrong ones."""

    matrix: FloatMatrix
    """float32 [n, n_features]"""
    shares: Doubles
    """[n] in [0, 1]"""
    weight: Doubles
    """[n] above 0, with a mean of about 1"""
    fractions: Doubles
    """[n] hash fractions, which the inner folds follow from; rows that belong together have the same"""
    seed: int = 0
    """Of what is drawn at random in fitting."""

    def take(self, rows: Integers) -> Examples:
        """Some of the rows."""
        return Examples(self.matrix[rows], self.shares[rows], self.weight[rows], self.fractions[rows], self.seed)

    @property
    def base_rate(self) -> float:
        """Share of correct outcomes among all."""
        return float(np.average(self.shares, weights=self.weight))

    def balanced(self) -> Examples:
        """The same rows with weights that make correct and wrong outcomes count alike in sum.

        A model fitted to it says of a rare outcome how it differs from a frequent one, not mostly that it is rare. Its
        probabilities are those of a balanced world: they have to be calibrated.
        """
        base = self.base_rate
        if not 0 < base < 1:
            return self
        correct, wrong = self.weight * self.shares / (2 * base), self.weight * (1 - self.shares) / (2 * (1 - base))
        weight = correct + wrong
        return Examples(self.matrix, correct / weight, weight / weight.mean(), self.fractions, self.seed)


def choose_strength(
    examples: Examples,
    strengths: Sequence[float],
    path: Callable[[Examples, Sequence[float]], Iterator[AnyModel]],
    loss: Callable[[AnyModel, Examples], float],
) -> tuple[float, float]:
    """Weakens the regularisation in all inner folds at once until their summed loss rises.

    The loss over strengths falls to its best and rises again, so what comes after the first rise, the part that takes
    the longest to fit, is not looked at.

    Args:
        examples: What may be learned from; at most about `folds.N_TUNING_ROWS` rows are used.
        strengths: Strongest regularisation first.
        path: Makes the models of these strengths, one after the other.
        loss: Summed loss of a model on rows that it has not seen.

    Returns:
        The strength of the least loss, of equal ones the strongest regularisation, and that loss; the strongest and
        infinity where there are no two inner folds.
    """
    rows, folds = tuning_folds(examples.fractions)
    parts = [(examples.take(rows[train]), examples.take(rows[test])) for train, test in held_out_parts(folds)]
    best, least = strengths[0], np.inf
    if not parts:
        return best, least
    for strength, *models in zip(strengths, *(path(train, strengths) for train, _ in parts), strict=True):
        total = sum(loss(model, test) for model, (_, test) in zip(models, parts, strict=True))
        if total > least:
            break
        if total < least:
            best, least = strength, total
    return best, least
