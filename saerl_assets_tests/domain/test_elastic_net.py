from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import ElasticNet
from sklearn.preprocessing import StandardScaler

from saerl_assets.domain.elastic_net import _Problem, fit_elastic_net
from saerl_assets.domain.folds import hash_fractions
from saerl_assets_tests.domain.feature_sets import make_prompt_ids, planted_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_ROWS = 400


def fractions(n_rows: int = N_ROWS) -> NDArray[np.float64]:
    return hash_fractions(make_prompt_ids(n_rows), seed=0, purpose="test")


def planted() -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Rows and a target that five of their features make, with a little noise."""
    rows = planted_rows(N_ROWS, 80, seed=0)
    signal = rows[:, :5].astype(np.float64) @ [2.0, -2.0, 1.0, 1.0, -1.0]
    return rows, signal + 0.3 * np.random.default_rng(1).normal(size=N_ROWS)


def test_a_planted_target_is_predicted_on_new_rows() -> None:
    rows, target = planted()
    model = fit_elastic_net(sparse.csr_matrix(rows[:300]), target[:300], fractions(300))
    predicted = model.predict(sparse.csr_matrix(rows[300:]))
    assert np.corrcoef(predicted, target[300:])[0, 1] > 0.95
    assert set(np.argsort(-np.abs(model.coefficients))[:5]) == set(range(5))


def test_a_random_target_is_hardly_predicted() -> None:
    rows, target = planted()
    shuffled = np.random.default_rng(2).permutation(target)
    model = fit_elastic_net(sparse.csr_matrix(rows), shuffled, fractions())
    assert model.predict(sparse.csr_matrix(rows)).std() < 0.3 * target.std()


@pytest.mark.parametrize("signal_ratio", [0.1, 10.0])
def test_the_fit_agrees_with_dense_scikit_learn(signal_ratio: float) -> None:
    rows, target = planted()
    (ours,) = _Problem(sparse.csr_matrix(rows), target).path(signal_ratio, [0.05])
    l2 = rows.shape[1] / (N_ROWS * signal_ratio)
    theirs = ElasticNet(alpha=0.05 + l2, l1_ratio=0.05 / (0.05 + l2), tol=1e-8)
    dense = StandardScaler().fit_transform(rows.astype(np.float64))
    theirs.fit(dense, (target - target.mean()) / target.std())
    error = ours.predict(sparse.csr_matrix(rows)) - target.mean() - target.std() * theirs.predict(dense)
    assert np.sqrt(np.mean(error**2)) < 0.02 * target.std()


def test_a_change_of_the_labels_unit_changes_only_the_unit() -> None:
    rows, target = planted()
    matrix = sparse.csr_matrix(rows)
    model, other = (fit_elastic_net(matrix, factor * target, fractions()) for factor in (1.0, 1024.0))
    np.testing.assert_allclose(other.predict(matrix), 1024 * model.predict(matrix), rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("rows", [np.zeros((12, 5)), np.ones((12, 5)), np.eye(12)])
def test_features_that_tell_nothing_leave_the_mean(rows: NDArray[np.float64]) -> None:
    target = np.arange(12.0)
    model = fit_elastic_net(sparse.csr_matrix(rows, dtype=np.float32), target, fractions(12))
    assert not model.coefficients.any()
    assert model.intercept == pytest.approx(5.5)
