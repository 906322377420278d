"""Ridge regression as a weight for each feature, from a few labels or from many.

Belongs here: bringing columns to the same scale, the choice of scale and penalty, solving for the weights. Does not
belong here: kernels and leave-one-out errors (kernel_ridge), what it is fitted to (difficulty).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from saerl_assets.domain.kernel_ridge import fit_kernel_ridge, gram
from saerl_assets.domain.linear_models import LinearModel, fit_scaling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saerl_assets.domain.features import FloatMatrix
    from saerl_assets.domain.linear_models import DoubleMatrix

    Doubles = NDArray[np.float64]

MAX_KERNEL_ROWS = 2_000
"""Up to so many rows the weights come from one factorisation of the rows' kernel; of more, so many choose scale and
penalty, and the weights come from an iterative solver over all of them."""

MAX_ITERATIONS = 300
SOLVER_TOLERANCE = 1e-6


def fit_ridge(
    matrix: FloatMatrix, target: Doubles, fractions: Doubles, widths: Sequence[int] | None = None
) -> LinearModel:
    """Minimises |y - Xw|^2 + n penalty |w|^2, columns as they are or each brought to variance 1.

    Parts that stand side by side get the same total variance, so that many columns do not drown few. Scale and penalty
    are those of the least leave-one-out error (`kernel_ridge.fit_kernel_ridge`), rows that belong together left out
    together. Of more than `MAX_KERNEL_ROWS` rows they are chosen on that many, by hash, and n times the penalty is
    kept: it is the noise's variance over the weights', which more rows do not change.

    Args:
        matrix: float32 [n, n_features], two rows or more.
        target: float64 [n].
        fractions: float64 [n], hash fractions of the rows; rows that belong together have the same.
        widths: Columns of each part that stands side by side; all are one part by default.

    Returns:
        The model; all coefficients are 0 if nothing predicts better than the mean.
    """
    chosen = np.sort(np.argsort(fractions, kind="stable")[:MAX_KERNEL_ROWS])
    few, goal = matrix[chosen], target[chosen]
    scales = column_scales(few, widths or (matrix.shape[1],))
    kernels = [gram(_scaled(few, scale)) for scale in scales]
    everything = np.arange(len(chosen))
    groups = np.unique(fractions[chosen], return_inverse=True)[1]
    fitted = fit_kernel_ridge(kernels, goal[:, None], everything, everything[:0], groups)
    if fitted.kernel < 0:
        return LinearModel(np.zeros(matrix.shape[1]), float(target.mean()), np.inf)
    scale = scales[fitted.kernel]
    if len(chosen) == len(target):
        weights = np.asarray(_scaled(few, scale).T @ fitted.weights[:, 0])
    else:
        weights = _solve(_scaled(matrix, scale), target - target.mean(), fitted.penalty * len(chosen))
    coefficients = weights * scale
    centre = np.asarray(matrix.mean(axis=0), dtype=np.float64).ravel()
    return LinearModel(coefficients, float(target.mean() - np.sum(centre * coefficients)), fitted.penalty)


def column_scales(matrix: FloatMatrix, widths: Sequence[int]) -> list[Doubles]:
    """What columns are multiplied by: alike within a part, or to variance 1; parts to the same total variance.

    Args:
        matrix: float32 [n, n_features].
        widths: Columns of each part.

    Returns:
        float64 [n_features] each: a row's expected squared distance from the mean row is 1 under either. Columns that
        cannot be learned from get 0.
    """
    unit = fit_scaling(matrix).inverse
    variance = np.divide(1.0, unit**2, out=np.zeros_like(unit), where=unit > 0)
    ends = np.cumsum(widths)
    found = []
    for scale in (np.asarray(unit > 0, dtype=np.float64), unit):
        scaled = variance * scale**2
        totals = [float(scaled[end - width : end].sum()) for width, end in zip(widths, ends, strict=True)]
        n_parts = max(sum(total > 0 for total in totals), 1)
        factors = [1.0 / np.sqrt(total * n_parts) if total > 0 else 0.0 for total in totals]
        found.append(scale * np.repeat(factors, widths))
    return found


def _scaled(matrix: FloatMatrix, scale: Doubles) -> DoubleMatrix:
    """Columns multiplied, zeros stay zeros: float64 [n, n_features]."""
    return sparse.csr_matrix((matrix.data * scale[matrix.indices], matrix.indices, matrix.indptr), shape=matrix.shape)


@dataclass(frozen=True)
class _Centred:
    """Products with a matrix whose columns have mean 0, without filling it."""

    rows: DoubleMatrix
    columns: sparse.csr_matrix[np.float64]
    """Its transpose."""
    mean: Doubles

    def matvec(self, vector: Doubles) -> Doubles:
        """X v."""
        flat = vector.ravel()
        found: Doubles = np.asarray(self.rows @ flat)
        return np.subtract(found, np.sum(self.mean * flat))

    def rmatvec(self, vector: Doubles) -> Doubles:
        """X' v."""
        flat = vector.ravel()
        found: Doubles = np.asarray(self.columns @ flat)
        return np.asarray(np.subtract(found, self.mean * flat.sum()))


def _solve(scaled: DoubleMatrix, goal: Doubles, penalty: float) -> Doubles:
    """The weights of least squared error plus penalty, by LSQR (Paige and Saunders, ACM TOMS 8(1), 1982)."""
    from scipy.sparse.linalg import LinearOperator, lsqr

    mean = np.asarray(scaled.mean(axis=0), dtype=np.float64).ravel()
    product = _Centred(scaled, scaled.T.tocsr(), mean)
    operator = LinearOperator(scaled.shape, matvec=product.matvec, rmatvec=product.rmatvec, dtype=np.float64)
    found = lsqr(
        operator,
        goal,
        damp=float(np.sqrt(penalty)),
        atol=SOLVER_TOLERANCE,
        btol=SOLVER_TOLERANCE,
        iter_lim=MAX_ITERATIONS,
    )
    return np.asarray(found[0], dtype=np.float64)
