"""ElasticNet on sparse features: a regression that keeps few features and spreads weight over similar ones.

Belongs here: the grid of penalties, the choice among them and the fit. Does not belong here: what it is
fitted to (difficulty).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from saerl_assets.domain.folds import held_out_parts, tuning_folds
from saerl_assets.domain.linear_models import LinearModel, choose_penalty, fit_scaling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from saerl_assets.domain.features import FloatMatrix

SIGNAL_RATIOS = (0.1, 1.0, 10.0)
"""Penalties on squared weights to choose from, as the ratio of predictable to unpredictable variance that they
allow beforehand: p features and n rows at ratio s give p / (n s), so the grid means the same for any size."""

N_L1_PENALTIES = 7

L1_STEP = 3.0
"""Each penalty on absolute weights is so many times weaker than the one before."""

L1_START = 0.8
"""The strongest, as a share of the one that leaves no feature."""

TOLERANCE = 1e-2
"""Duality gap at which a fit ends, relative to the target's variance. On the features of 2,400 mathematics
prompts, 1e-4 changed the rank correlation by 0.0001 and took three times as long."""

MAX_SWEEPS = 50


def fit_elastic_net(matrix: FloatMatrix, target: NDArray[np.float64], fractions: NDArray[np.float64]) -> LinearModel:
    """Minimises |y - Xw|^2 / 2n + l1 |w|_1 + l2 |w|^2 / 2, with features and target brought to variance 1.

    The objective is Zou and Hastie's (J. R. Stat. Soc. B 67(2), 2005), in scikit-learn's scale: l1 + l2 is its
    alpha, l1 / (l1 + l2) its l1_ratio. Both are those of the least squared error over inner folds.

    Args:
        matrix: float32 [n, n_features].
        target: float64 [n].
        fractions: float64 [n], hash fractions of the rows, for the inner folds.

    Returns:
        The model; its penalty is l1. All coefficients are 0 if nothing predicts better than the mean.
    """
    rows, folds = tuning_folds(fractions)
    chosen = _choose(matrix[rows], target[rows], folds)
    if chosen is None:
        return LinearModel(np.zeros(matrix.shape[1]), float(target.mean()), np.inf)
    signal_ratio, l1 = chosen
    # More rows than it was chosen on make chance covariances smaller, by the square root of their number.
    return next(_Problem(matrix, target).path(signal_ratio, [l1 * np.sqrt(len(rows) / len(target))]))


def _choose(matrix: FloatMatrix, target: NDArray[np.float64], folds: NDArray[np.int64]) -> tuple[float, float] | None:
    """(signal ratio, l1) of the least squared error over the inner folds; None if the mean does as well."""
    parts = list(held_out_parts(folds))
    losses = [_SquaredError(matrix[test], target[test]) for _, test in parts]
    problems = [_Problem(matrix[train], target[train]) for train, _ in parts]
    strongest = L1_START * _Problem(matrix, target).largest_correlation()
    penalties = [strongest * L1_STEP**-i for i in range(N_L1_PENALTIES)]
    chosen = None
    least = sum(float(np.sum((target[test] - target[train].mean()) ** 2)) for train, test in parts)
    for signal_ratio in SIGNAL_RATIOS:
        paths = [problem.path(signal_ratio, penalties) for problem in problems]
        l1, error = choose_penalty(paths, losses)
        if error < least:
            chosen, least = (signal_ratio, l1), error
    return chosen


@dataclass(frozen=True)
class _SquaredError:
    """Summed squared error of a model on rows that it has not seen."""

    matrix: FloatMatrix
    target: NDArray[np.float64]

    def __call__(self, model: LinearModel) -> float:
        return float(np.sum((self.target - model.predict(self.matrix)) ** 2))


class _Problem:
    """Features and target of the rows to fit to, brought to variance 1 once for all penalties."""

    def __init__(self, matrix: FloatMatrix, target: NDArray[np.float64]) -> None:
        self.scaling = fit_scaling(matrix)
        self.columns = self.scaling.apply(matrix).tocsc()
        self.mean, self.deviation = float(target.mean()), float(target.std())
        self.unit_target = (target - self.mean) / (self.deviation or 1.0)

    def largest_correlation(self) -> float:
        """Of a feature with the target, absolute and above 0."""
        correlations = np.asarray(self.columns.T @ self.unit_target) / len(self.unit_target)
        return max(float(np.abs(correlations).max(initial=0.0)), float(np.finfo(np.float64).eps))

    def path(self, signal_ratio: float, l1_penalties: list[float]) -> Iterator[LinearModel]:
        """The model at each penalty on absolute weights; each fit starts from the one before."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import ElasticNet

        n_usable = max(int(np.count_nonzero(self.scaling.inverse)), 1)
        l2 = n_usable / (len(self.unit_target) * signal_ratio)
        model = ElasticNet(tol=TOLERANCE, max_iter=MAX_SWEEPS, warm_start=True, copy_X=False)
        for l1 in l1_penalties:
            model.set_params(alpha=l1 + l2, l1_ratio=l1 / (l1 + l2))
            with warnings.catch_warnings():
                # Where the sweeps run out, the inner folds judge what was reached like anything else.
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(self.columns, self.unit_target)
            coefficients = model.coef_ * self.scaling.inverse * self.deviation
            yield LinearModel(coefficients, self.mean + self.deviation * float(model.intercept_), l1)
