"""Ridge regression on kernels: one factorisation gives every penalty, and every row's prediction without that row.

Belongs here: linear kernels of sparse and dense predictors, fitting with the penalty chosen by leave-one-out error.
Does not belong here: which predictors there are and what is made of the predictions (evidence).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Doubles: TypeAlias = NDArray[np.float64]
    Matrix: TypeAlias = "sparse.csr_matrix[np.float32] | NDArray[np.floating]"

PENALTIES = np.logspace(-4, 3, 15)
"""Ridge penalties that are tried, in units of the kernel's mean diagonal."""

MAX_SPARSE_DENSITY = 0.2
"""A matrix with a larger share of entries is multiplied as a dense one, which is faster then."""


@dataclass(frozen=True)
class Fitted:
    """Predictions of one fit. `n_targets` columns share the penalty."""

    predictions: Doubles
    """[n_test, n_targets]"""
    left_out: Doubles
    """[n_train, n_targets], each row predicted by a model that has not seen it."""
    penalty: float
    kernel: int
    """Which of the kernels was chosen; -1 where none beats the mean."""
    weights: Doubles
    """[n_train, n_targets] of the training rows' kernel with a row, in its prediction."""


def linear_kernels(predictor: Matrix) -> list[Doubles]:
    """Kernels of a predictor: of its values as they are, and of every column brought to variance 1.

    Args:
        predictor: [n, d], sparse or dense; no label has a part in it.

    Returns:
        float64 [n, n] each, with a mean diagonal of 1 after centring; one where both are the same, none where every
        column is constant.
    """
    made: list[Doubles] = []
    for scaled in (predictor, _to_unit_variance(predictor)):
        kernel = _centred(gram(scaled))
        size = float(np.trace(kernel)) / len(kernel)
        if size > 1e-12 and not (made and np.allclose(kernel / size, made[0])):
            made.append(kernel / size)
    return made


def gram(matrix: Matrix | sparse.csr_matrix[np.float64]) -> Doubles:
    """Inner products of all pairs of rows, float64 [n, n], of [n, d]."""
    if sparse.issparse(matrix) and matrix.nnz > MAX_SPARSE_DENSITY * np.prod(matrix.shape):
        matrix = matrix.toarray()
    product = matrix @ matrix.T
    return np.asarray(product.toarray() if sparse.issparse(product) else product, dtype=np.float64)


def fit_kernel_ridge(
    kernels: Sequence[Doubles], targets: Doubles, train: NDArray[np.int64], test: NDArray[np.int64]
) -> Fitted:
    """Fits on the training rows with the kernel and penalty of least leave-one-out error, and predicts the others.

    The error that each row has in a model fitted without it follows from the fit of all (Allen 1974; Rifkin and Lippert
    2007, MIT-CSAIL-TR-2007-025): (y - prediction) / (1 - its own leverage).

    Args:
        kernels: float64 [n, n], one or more to choose from; without any the mean is predicted.
        targets: float64 [n, n_targets].
        train: Rows to learn from, at least two.
        test: Rows to predict.
    """
    goal = targets[train]
    mean = goal.mean(axis=0)
    n_train = len(train)
    loo_mean = (goal.sum(axis=0) - goal) / (n_train - 1)
    best = Fitted(np.tile(mean, (len(test), 1)), loo_mean, np.inf, -1, np.zeros_like(goal))
    least = float(np.square(goal - loo_mean).sum())
    for number, kernel in enumerate(kernels):
        inner, outer = _centred_on(kernel, train, test)
        values, vectors = np.linalg.eigh(inner)
        values = np.maximum(values, 0.0)
        rotated = vectors.T @ (goal - mean)
        for penalty in PENALTIES:
            shrink = values / (values + penalty * n_train)
            fitted = vectors @ (shrink[:, None] * rotated)
            leverage = np.square(vectors) @ shrink + 1.0 / n_train
            left_out = goal - (goal - mean - fitted) / (1.0 - np.minimum(leverage, 1.0 - 1e-9))[:, None]
            error = float(np.square(goal - left_out).sum())
            if error < least:
                weights = vectors @ (rotated / (values + penalty * n_train)[:, None])
                best = Fitted(mean + outer @ weights, left_out, float(penalty), number, weights)
                least = error
    return best


def _to_unit_variance(predictor: Matrix) -> Matrix:
    """Columns divided by their standard deviation; constant ones become zero."""
    if sparse.issparse(predictor):
        mean = np.asarray(predictor.mean(axis=0)).ravel()
        square = np.asarray(predictor.multiply(predictor).mean(axis=0)).ravel()
        spread = np.sqrt(np.maximum(square - mean**2, 0.0))
        return sparse.csr_matrix(predictor.multiply(_inverse(spread)))
    return np.asarray(predictor * _inverse(predictor.std(axis=0)))


def _inverse(spread: NDArray[np.floating]) -> Doubles:
    found = np.zeros(len(spread))
    usable = spread > 1e-9
    found[usable] = 1.0 / spread[usable]
    return found


def _centred(kernel: Doubles) -> Doubles:
    means = kernel.mean(axis=0)
    centred: Doubles = kernel - means - means[:, None] + means.mean()
    return centred


def _centred_on(kernel: Doubles, train: NDArray[np.int64], test: NDArray[np.int64]) -> tuple[Doubles, Doubles]:
    """The kernel among training rows and from test to training rows, centred on the training rows' mean."""
    inner, outer = kernel[np.ix_(train, train)], kernel[np.ix_(test, train)]
    means = inner.mean(axis=0)
    total = means.mean()
    return inner - means - means[:, None] + total, outer - means - outer.mean(axis=1)[:, None] + total
