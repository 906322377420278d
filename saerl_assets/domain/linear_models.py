"""Linear models on sparse features: weights, scaling, choice of penalty, held-out predictions.

Belongs here: what the ElasticNet and the logistic regression share. Does not belong here: how either is
fitted (elastic_net, logistic_regression) and what is made of their predictions (difficulty, quality).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy import sparse

from saerl_assets.domain.folds import held_out_parts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saerl_assets.domain.features import FloatMatrix

    DoubleMatrix: TypeAlias = sparse.csr_matrix[np.float64]

MIN_PROMPTS_ACTIVE = 3
"""A feature that is active in fewer of the prompts learned from gets no weight: nothing can be learned from
it."""


@dataclass(frozen=True)
class LinearModel:
    """A weight for each feature, and what was chosen to fit them."""

    coefficients: NDArray[np.float64]
    """[n_features] in units of the unscaled features."""
    intercept: float
    penalty: float
    """Strength of the regularisation that was chosen; its meaning is the fitting function's."""

    def predict(self, matrix: FloatMatrix) -> NDArray[np.float64]:
        """Intercept plus weighted features, float64 [n], for float32 [n, n_features]."""
        return np.asarray(matrix @ self.coefficients, dtype=np.float64) + self.intercept


Fit: TypeAlias = Callable[["NDArray[np.int64]"], LinearModel]
"""Fits a model to the rows of these numbers, and chooses its hyperparameters on nothing else."""


@dataclass(frozen=True)
class Scaling:
    """What brings every feature to variance 1 without filling the matrix: a division and a mean."""

    inverse: NDArray[np.float64]
    """[n_features] 1 / standard deviation; 0 for a feature that cannot be learned from."""
    centre: NDArray[np.float64]
    """[n_features] mean after the division."""

    def apply(self, matrix: FloatMatrix) -> DoubleMatrix:
        """The matrix divided, not centred, so that zeros stay zeros: float64 [n, n_features]."""
        values = matrix.data * self.inverse[matrix.indices]
        return sparse.csr_matrix((values, matrix.indices, matrix.indptr), shape=matrix.shape)

    def common(self) -> Scaling:
        """The same factor for all features that can be learned from: they have variance 1 on average, not each."""
        usable = self.inverse > 0
        if not usable.any():
            return self
        deviation = 1 / self.inverse[usable]
        factor = 1 / np.sqrt(np.mean(deviation**2))
        inverse, centre = np.zeros_like(self.inverse), np.zeros_like(self.centre)
        inverse[usable], centre[usable] = factor, self.centre[usable] * deviation * factor
        return Scaling(inverse, centre)


def fit_scaling(matrix: FloatMatrix) -> Scaling:
    """Mean and standard deviation of every feature over the given rows only, zeros included."""
    n_rows, n_features = matrix.shape
    values = matrix.data.astype(np.float64)
    n_active = np.bincount(matrix.indices, weights=values != 0, minlength=n_features)
    mean = np.bincount(matrix.indices, weights=values, minlength=n_features) / n_rows
    square = np.bincount(matrix.indices, weights=values**2, minlength=n_features) / n_rows
    variance = square - mean**2
    # A feature of the same value everywhere has a variance of rounding errors.
    usable = (n_active >= MIN_PROMPTS_ACTIVE) & (variance > 1e-10 * square)
    inverse = np.zeros(n_features)
    inverse[usable] = 1 / np.sqrt(variance[usable])
    return Scaling(inverse, mean * inverse)


def choose_penalty(
    paths: Sequence[Iterator[LinearModel]], losses: Sequence[Callable[[LinearModel], float]]
) -> tuple[float, float]:
    """Weakens the penalty in all inner folds at once until their summed loss rises.

    The loss over a path of penalties falls to its best and rises again, so what comes after the first rise,
    the part that takes the longest to fit, is not looked at.

    Args:
        paths: For each inner fold its models, by the same penalties, strongest first.
        losses: For each inner fold the summed loss of a model on the rows left out.

    Returns:
        The best penalty and its loss, of equal ones the strongest; (nan, inf) without any fold.
    """
    best = (np.nan, np.inf)
    for models in zip(*paths, strict=True):
        total = sum(loss(model) for loss, model in zip(losses, models, strict=True))
        if total > best[1]:
            break
        if total < best[1]:
            best = (models[0].penalty, total)
    return best


@dataclass(frozen=True)
class HeldOut:
    """Predictions for rows by models that have not seen them."""

    predictions: NDArray[np.float64]
    """[n]"""
    penalties: list[float]
    """What each model chose."""


def predict_held_out(fit: Fit, matrix: FloatMatrix, folds: NDArray[np.int64]) -> HeldOut:
    """Predicts each fold by a model fitted, hyperparameters and all, to the other folds.

    Args:
        fit: Fits to rows of the matrix.
        matrix: float32 [n, n_features].
        folds: int64 [n], the outer fold of each row; at least two differ.
    """
    predictions = np.full(len(folds), np.nan)
    penalties = []
    for train, test in held_out_parts(folds):
        model = fit(train)
        predictions[test] = model.predict(matrix[test])
        penalties.append(model.penalty)
    return HeldOut(predictions, penalties)
