"""Logistic regression on sparse features for targets that are shares of outcomes.

Belongs here: the scales and penalties, the choice among them and the fit. Does not belong here: what it is
fitted to, and what is done with its probabilities (quality).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np
from scipy import sparse

from saerl_assets.domain.examples import choose_strength
from saerl_assets.domain.linear_models import LinearModel, fit_scaling

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from saerl_assets.domain.examples import Examples
    from saerl_assets.domain.linear_models import DoubleMatrix

LOGIT_VARIANCES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Penalties to choose from, as the variance of the logit that they allow beforehand. C is this over the
number of features that can be learned from, so that the grid means the same for any width."""

Scale: TypeAlias = Literal["unit", "common"]
"""`unit`: each feature is brought to variance 1. `common`: all of them by one factor, to variance 1 on average."""

SCALES: tuple[Scale, ...] = ("unit", "common")
"""Under variance 1, thousands of rare features drown the few that tell; as they are, strong features drown weak ones.
Which of them is worse, the labels say."""

MAX_STEPS = 200

GRADIENT_TOLERANCE = 1e-5
"""Largest entry of the mean loss's gradient at which a fit ends."""


def logistic(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-logit)) without overflow, float64 [n]."""
    return np.exp(-np.logaddexp(0.0, -logits))


def log_loss(shares: NDArray[np.float64], logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cross-entropy in nats of each share of outcomes under its logit, float64 [n]."""
    return np.logaddexp(0.0, logits) - shares * logits


class Penalty(NamedTuple):
    """How a logistic regression is held back."""

    inverse: float
    """C, scikit-learn's inverse regularisation strength."""
    scale: Scale


def fit_logistic(examples: Examples) -> LinearModel:
    """Minimises the weighted cross-entropy plus |w|^2 / 2C over scaled features.

    A prompt with share p and weight n enters as n p correct and n (1 - p) wrong outcomes: the binomial likelihood, the
    same as two rows of those weights in a two-class regression. C and scale are those of the least loss over inner
    folds.

    Args:
        examples: What to fit to.

    Returns:
        The model of the logit; its penalty is C.
    """
    penalty = choose_logistic(examples)
    return next(logistic_path(examples, [penalty.inverse], penalty.scale))


def choose_logistic(examples: Examples) -> Penalty:
    """C and scale of the least loss over the inner folds; the strongest C and variance 1 where there are no two."""
    n_usable = max(int(np.count_nonzero(fit_scaling(examples.matrix).inverse)), 1)
    grid = [variance / n_usable for variance in LOGIT_VARIANCES]
    found: list[tuple[float, Penalty]] = []
    for scale in SCALES:
        inverse, loss = choose_strength(examples, grid, partial(logistic_path, scale=scale), _summed_loss)
        found.append((loss, Penalty(inverse, scale)))
    return min(found, key=lambda each: each[0])[1]


def _summed_loss(model: LinearModel, examples: Examples) -> float:
    """Weighted cross-entropy on rows that the model has not seen."""
    return float(np.sum(examples.weight * log_loss(examples.shares, model.predict(examples.matrix))))


def logistic_path(
    examples: Examples, inverse_penalties: Sequence[float], scale: Scale = "unit"
) -> Iterator[LinearModel]:
    """The model at each C; each fit starts from the one before."""
    from scipy.optimize import minimize

    matrix, shares, weight = examples.matrix, examples.shares, examples.weight
    scaling = fit_scaling(matrix)
    if scale == "common":
        scaling = scaling.common()
    objective = _Objective(scaling.apply(matrix), shares, weight, scaling.centre)
    base = np.clip(np.average(shares, weights=weight), 0.5 / len(shares), 1 - 0.5 / len(shares))
    point = np.append(np.zeros(matrix.shape[1]), np.log(base / (1 - base)))
    for inverse_penalty in inverse_penalties:
        found = minimize(
            objective,
            point,
            args=(1 / (inverse_penalty * weight.sum()),),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": MAX_STEPS, "gtol": GRADIENT_TOLERANCE},
        )
        point = np.asarray(found.x)
        weights, intercept = point[:-1], point[-1]
        yield LinearModel(weights * scaling.inverse, float(intercept - scaling.centre @ weights), inverse_penalty)


class _Objective:
    """Mean weighted cross-entropy plus penalty, and its gradient; centres features without filling."""

    def __init__(
        self,
        scaled: DoubleMatrix,
        shares: NDArray[np.float64],
        weight: NDArray[np.float64],
        centre: NDArray[np.float64],
    ) -> None:
        self.scaled = scaled
        self.transposed = sparse.csr_matrix(scaled.T)
        self.shares = shares
        self.weight = weight / weight.sum()
        self.centre = centre

    def __call__(self, point: NDArray[np.float64], penalty: float) -> tuple[float, NDArray[np.float64]]:
        """Value and gradient float64 [n_features + 1] at weights and intercept."""
        weights, intercept = point[:-1], point[-1]
        logits = self.scaled @ weights + (intercept - self.centre @ weights)
        residual = self.weight * (logistic(logits) - self.shares)
        value = self.weight @ log_loss(self.shares, logits) + 0.5 * penalty * (weights @ weights)
        total = residual.sum()
        gradient = self.transposed @ residual - self.centre * total + penalty * weights
        return float(value), np.append(gradient, total)
