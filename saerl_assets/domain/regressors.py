"""The regressions that a proxy can be learned by, and the choice between them.

Belongs here: calling one by name. Does not belong here: how each is fitted (elastic_net, ridge).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from saerl_assets.domain.elastic_net import fit_elastic_net
from saerl_assets.domain.folds import held_out_parts, tuning_folds
from saerl_assets.domain.ridge import fit_ridge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saerl_assets.domain.features import FloatMatrix
    from saerl_assets.domain.linear_models import LinearModel

    Doubles = NDArray[np.float64]

Regressor = Literal["elastic_net", "ridge"]

SHIFT = 7919.0

NAMES: dict[Regressor, str] = {"elastic_net": "ElasticNet", "ridge": "Ridge regression"}


def fit_regressor(
    name: Regressor, matrix: FloatMatrix, target: Doubles, fractions: Doubles, widths: Sequence[int]
) -> LinearModel:
    """Fits one regression with its hyperparameters.

    Args:
        name: Which one.
        matrix: float32 [n, n_features].
        target: float64 [n].
        fractions: float64 [n], hash fractions of the rows.
        widths: Columns of each part that stands side by side; to ridge, parts have the same weight.
    """
    if name == "ridge":
        return fit_ridge(matrix, target, fractions, widths)
    return fit_elastic_net(matrix, target, fractions)


def choose_regressor(matrix: FloatMatrix, target: Doubles, fractions: Doubles, widths: Sequence[int]) -> Regressor:
    """The regression of least squared error over inner folds, each fitted with hyperparameters of its own.

    Arguments are those of `fit_regressor`; of equal ones ridge, which is the faster. It chooses on
    `folds.N_TUNING_ROWS` rows at most.
    """
    rows, folds = tuning_folds(fractions)
    # further digits of a fraction are one again, which has nothing to do with the fold that the first ones decide
    inner = (fractions * SHIFT) % 1.0
    errors: dict[Regressor, float] = {}
    for name in ("ridge", "elastic_net"):
        error = 0.0
        for train, test in held_out_parts(folds):
            known, unknown = rows[train], rows[test]
            model = fit_regressor(name, matrix[known], target[known], inner[known], widths)
            error += float(np.sum((target[unknown] - model.predict(matrix[unknown])) ** 2))
        errors[name] = error
    return min(errors, key=errors.__getitem__)
