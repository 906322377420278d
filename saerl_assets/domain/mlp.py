"""A two-layer perceptron on a few directions of sparse features, several members averaged.

Belongs here: reducing the features, fitting scikit-learn's perceptron, predicting from its weights. Does not belong
here: what it is fitted to, and what is done with its scores (quality).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from saerl_assets.domain.examples import choose_strength
from saerl_assets.domain.linear_models import fit_scaling

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from saerl_assets.domain.examples import Examples
    from saerl_assets.domain.features import FloatMatrix

WEIGHT_DECAYS = (30.0, 3.0, 0.3)
"""Penalties on the squared weights to choose from, scikit-learn's `alpha`."""

N_COMPONENTS = 128
"""Directions that the features are reduced to. A perceptron on thousands of features and hundreds of labels learns the
labels by heart."""

N_HIDDEN = 64
N_MEMBERS = 5
"""Perceptrons that are averaged, each with its own first weights: one alone depends on them."""

MIN_ROWS_STOPPED_EARLY = 200
"""From so many rows on a tenth of them decides when a member has learned enough; fewer rows are too few to give any
away, and the weight decay alone holds it back."""

MAX_EPOCHS = 100
N_SVD_ITERATIONS = 4


@dataclass(frozen=True)
class Perceptron:
    """Mean over members of W2 relu(W1 (features x projection) + b1) + b2."""

    projection: NDArray[np.float32]
    """[n_features, n_components]"""
    first: NDArray[np.float32]
    """[n_members, n_components, n_hidden]"""
    first_bias: NDArray[np.float32]
    """[n_members, n_hidden]"""
    second: NDArray[np.float32]
    """[n_members, n_hidden]"""
    second_bias: NDArray[np.float32]
    """[n_members]"""
    penalty: float
    """The weight decay that was chosen."""

    def predict(self, matrix: FloatMatrix) -> NDArray[np.float64]:
        """The members' mean prediction of the share, float64 [n]; not held to [0, 1]."""
        reduced = np.asarray(matrix @ self.projection, dtype=np.float64)
        total = np.zeros(matrix.shape[0])
        for first, first_bias, second, second_bias in zip(
            self.first, self.first_bias, self.second, self.second_bias, strict=True
        ):
            total += np.maximum(reduced @ first + first_bias, 0.0) @ second + second_bias
        return total / len(self.first)


def fit_mlp(examples: Examples) -> Perceptron:
    """Minimises the weighted squared error of the shares plus weight decay, with early stopping.

    Features are brought to variance 1 and reduced to their `N_COMPONENTS` directions of most variance; no label has a
    part in that. The weight decay is that of the least error over inner folds.

    Args:
        examples: What to fit to.
    """
    return next(mlp_path(examples, [choose_mlp(examples)]))


def choose_mlp(examples: Examples) -> float:
    """The weight decay of the least error of a single member over the inner folds; the strongest without two folds."""

    def path(train: Examples, weight_decays: Sequence[float]) -> Iterator[Perceptron]:
        return mlp_path(train, weight_decays, n_members=1)

    return choose_strength(examples, WEIGHT_DECAYS, path, _summed_error)[0]


def _summed_error(model: Perceptron, examples: Examples) -> float:
    return float(np.sum(examples.weight * (examples.shares - model.predict(examples.matrix)) ** 2))


def mlp_path(examples: Examples, weight_decays: Sequence[float], *, n_members: int = N_MEMBERS) -> Iterator[Perceptron]:
    """The model at each weight decay."""
    projection = _projection(examples.matrix, examples.seed)
    reduced = np.asarray(examples.matrix @ projection, dtype=np.float64)
    for weight_decay in weight_decays:
        members = [_member(reduced, examples, weight_decay, examples.seed + number) for number in range(n_members)]
        first, first_bias, second, second_bias = (np.stack(parts) for parts in zip(*members, strict=True))
        yield Perceptron(projection, first, first_bias, second, second_bias, weight_decay)


def _projection(matrix: FloatMatrix, seed: int) -> NDArray[np.float32]:
    """Scaling and reduction in one matrix, float32 [n_features, n_components]; components have variance 1 on average.

    Features that cannot be learned from get zeros; where all are such, one component of zeros is left.
    """
    from sklearn.decomposition import TruncatedSVD

    inverse = fit_scaling(matrix).inverse
    usable = np.flatnonzero(inverse)
    n_rows, n_components = matrix.shape[0], min(N_COMPONENTS, matrix.shape[0] - 1)
    projection = np.zeros((matrix.shape[1], max(min(n_components, len(usable)), 1)))
    if not len(usable):
        return projection.astype(np.float32)
    scaled = sparse.csr_matrix(matrix[:, usable] @ sparse.diags(inverse[usable]))
    if n_components < 1 or len(usable) <= n_components:
        directions = np.eye(len(usable), projection.shape[1])
    else:
        reduction = TruncatedSVD(n_components, n_iter=N_SVD_ITERATIONS, random_state=seed)
        directions = reduction.fit(scaled).components_.T
    spread = float(np.square(np.asarray(scaled @ directions)).sum()) / (n_rows * projection.shape[1])
    projection[usable] = inverse[usable, None] * directions / np.sqrt(max(spread, 1e-12))
    return projection.astype(np.float32)


def _member(
    reduced: NDArray[np.float64], examples: Examples, weight_decay: float, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], np.float32]:
    """One perceptron's weights and biases, layer by layer."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    model = MLPRegressor(
        hidden_layer_sizes=(N_HIDDEN,),
        alpha=weight_decay,
        early_stopping=len(reduced) >= MIN_ROWS_STOPPED_EARLY,
        max_iter=MAX_EPOCHS,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(reduced, examples.shares, sample_weight=examples.weight)
    (first, second), (first_bias, second_bias) = model.coefs_, model.intercepts_
    return (
        first.astype(np.float32),
        first_bias.astype(np.float32),
        second[:, 0].astype(np.float32),
        np.float32(second_bias[0]),
    )
