"""Ridge regression on kernels: one factorisation gives every penalty, and each row's prediction without its group.

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

TIE = 1e-9
"""Errors that differ by a smaller share are equal but for rounding; then the mean, or what was tried first, is kept."""

MAX_SPARSE_DENSITY = 0.2
"""A matrix with a larger share of entries is multiplied as a dense one, which is faster then."""


@dataclass(frozen=True)
class Fitted:
    """Predictions of one fit. `n_targets` columns share the penalty."""

    predictions: Doubles
    """[n_test, n_targets]"""
    left_out: Doubles
    """[n_train, n_targets], each row predicted by a model that has not seen it, nor any other of its group."""
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
    kernels: Sequence[Doubles],
    targets: Doubles,
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    groups: NDArray[np.int64] | None = None,
) -> Fitted:
    """Fits on the training rows with the kernel and penalty of least leave-one-out error, and predicts the others.

    The error that each row has in a model fitted without it follows from the fit of all (Allen 1974; Rifkin and Lippert
    2007, MIT-CSAIL-TR-2007-025): (y - prediction) / (1 - its own leverage). Rows that belong together are left out
    together: then it is the same with a block of the hat matrix, (I - H_gg)^-1 (y - prediction)_g.

    Args:
        kernels: float64 [n, n], one or more to choose from; without any the mean is predicted.
        targets: float64 [n, n_targets].
        train: Rows to learn from, at least two.
        test: Rows to predict.
        groups: int64 [n], the same for rows that belong together; each is its own by default. Where all training rows
            are of one group there is nothing to choose by, and the mean is predicted.
    """
    goal = targets[train]
    mean = goal.mean(axis=0)
    n_train = len(train)
    blocks = _Blocks.of(np.arange(n_train) if groups is None else groups[train])
    mean_without = blocks.means_without(goal)
    best = Fitted(np.tile(mean, (len(test), 1)), mean_without, np.inf, -1, np.zeros_like(goal))
    if blocks.is_single:
        return best
    least = float(np.square(goal - mean_without).sum())
    for number, kernel in enumerate(kernels):
        inner, outer = _centred_on(kernel, train, test)
        values, vectors = np.linalg.eigh(inner)
        values = np.maximum(values, 0.0)
        rotated = vectors.T @ (goal - mean)
        for penalty in PENALTIES:
            shrink = values / (values + penalty * n_train)
            fitted = vectors @ (shrink[:, None] * rotated)
            left_out = goal - blocks.errors_without(goal - mean - fitted, vectors, shrink)
            error = float(np.square(goal - left_out).sum())
            if error < least * (1.0 - TIE):
                weights = vectors @ (rotated / (values + penalty * n_train)[:, None])
                best = Fitted(mean + outer @ weights, left_out, float(penalty), number, weights)
                least = error
    return best


@dataclass(frozen=True)
class _Blocks:
    """Training rows by what is left out together."""

    groups: NDArray[np.int64]
    """[n_train], counted from 0."""
    by_size: tuple[NDArray[np.int64], ...]
    """[n_groups, size] rows of the groups of each size, smallest first."""

    @classmethod
    def of(cls, names: NDArray[np.int64]) -> _Blocks:
        """From one number for each training row, the same for rows that belong together."""
        _, groups, sizes = np.unique(names, return_inverse=True, return_counts=True)
        order = np.argsort(groups, kind="stable")
        size_of_row = sizes[groups[order]]
        by_size = tuple(order[size_of_row == size].reshape(-1, size) for size in np.unique(sizes))
        return cls(groups, by_size)

    @property
    def is_single(self) -> bool:
        """Whether there is one group alone."""
        return sum(len(rows) for rows in self.by_size) < 2

    def means_without(self, goal: Doubles) -> Doubles:
        """The mean of the rows of the other groups, for each row; of all where there is no other."""
        if self.is_single:
            return np.tile(goal.mean(axis=0), (len(goal), 1))
        found = np.zeros_like(goal)
        total = goal.sum(axis=0)
        for rows in self.by_size:
            found[rows] = ((total - goal[rows].sum(axis=1)) / (len(goal) - rows.shape[1]))[:, None]
        return found

    def errors_without(self, errors: Doubles, vectors: Doubles, shrink: Doubles) -> Doubles:
        """What the errors of a fit would be, had it not seen the row's group.

        Args:
            errors: float64 [n, n_targets], of the fit to all.
            vectors: float64 [n, n], of the centred kernel; the hat matrix is V diag(shrink) V' + 1 / n.
            shrink: float64 [n].
        """
        found = np.zeros_like(errors)
        n = len(errors)
        for rows in self.by_size:
            size = rows.shape[1]
            if size == 1:
                alone = rows[:, 0]
                leverage = np.square(vectors[alone]) @ shrink + 1.0 / n
                found[alone] = errors[alone] / (1.0 - np.minimum(leverage, 1.0 - 1e-9))[:, None]
                continue
            of = vectors[rows]
            rest = np.eye(size) - (of * shrink) @ of.transpose(0, 2, 1) - 1.0 / n
            found[rows] = np.linalg.solve(rest, errors[rows])
        return found


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
