from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import approx_fprime
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from saerl_assets.domain.examples import Examples
from saerl_assets.domain.folds import hash_fractions
from saerl_assets.domain.linear_models import fit_scaling
from saerl_assets.domain.logistic_regression import _Objective, fit_logistic, log_loss, logistic, logistic_path
from saerl_assets_tests.domain.feature_sets import make_prompt_ids, planted_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_ROWS = 300


def planted() -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """Rows, shares of correct ones among 2 or 8 rollouts that three of their features make, weights."""
    rng = np.random.default_rng(0)
    rows = planted_rows(N_ROWS, 40, seed=0)
    probability = logistic(rows[:, :3].astype(np.float64) @ [2.0, -2.0, 1.0])
    n_rollouts = rng.choice([2, 8], N_ROWS)
    shares = rng.binomial(n_rollouts, probability) / n_rollouts
    return rows, shares, n_rollouts / n_rollouts.mean()


def fractions(n_rows: int = N_ROWS) -> NDArray[np.float64]:
    return hash_fractions(make_prompt_ids(n_rows), seed=0, purpose="test")


@given(st.floats(-1e6, 1e6), st.floats(0, 1))
def test_probability_and_loss_are_finite_and_consistent(logit: float, share: float) -> None:
    (probability,) = logistic(np.array([logit]))
    (loss,) = log_loss(np.array([share]), np.array([logit]))
    assert 0 <= probability <= 1
    assert np.isfinite(loss)
    if abs(logit) < 20:
        assert loss == pytest.approx(-share * np.log(probability) - (1 - share) * np.log1p(-probability), abs=1e-6)


def test_the_gradient_is_that_of_the_value() -> None:
    rows, shares, weight = planted()
    scaling = fit_scaling(sparse.csr_matrix(rows))
    objective = _Objective(scaling.apply(sparse.csr_matrix(rows)), shares, weight, scaling.centre)
    point = np.random.default_rng(3).normal(size=rows.shape[1] + 1)
    _, gradient = objective(point, 0.1)

    def value(at: NDArray[np.float64]) -> float:
        return objective(at, 0.1)[0]

    numeric = approx_fprime(point, value, 1e-6)
    np.testing.assert_allclose(gradient, numeric, atol=1e-5)


@pytest.mark.parametrize("inverse_penalty", [0.01, 1.0])
def test_the_fit_is_the_two_row_regression_of_scikit_learn(inverse_penalty: float) -> None:
    rows, shares, weight = planted()
    (ours,) = logistic_path(Examples(sparse.csr_matrix(rows), shares, weight, fractions()), [inverse_penalty])
    scaler = StandardScaler().fit(rows.astype(np.float64))
    dense = scaler.transform(rows.astype(np.float64))
    theirs = LogisticRegression(C=inverse_penalty, tol=1e-8, max_iter=1000)
    theirs.fit(
        np.vstack([dense, dense]),
        np.repeat([1, 0], N_ROWS),
        sample_weight=np.concatenate([weight * shares, weight * (1 - shares)]),
    )
    np.testing.assert_allclose(ours.predict(sparse.csr_matrix(rows)), theirs.decision_function(dense), atol=0.01)


def test_planted_outcomes_are_predicted_on_new_rows() -> None:
    rows, shares, weight = planted()
    model = fit_logistic(Examples(sparse.csr_matrix(rows[:200]), shares[:200], weight[:200], fractions(200)))
    predicted = logistic(model.predict(sparse.csr_matrix(rows[200:])))
    assert np.corrcoef(predicted, shares[200:])[0, 1] > 0.5
    assert set(np.argsort(-np.abs(model.coefficients * rows.std(axis=0)))[:2]) == {0, 1}


@pytest.mark.parametrize("shares", [np.zeros(12), np.ones(12), np.arange(12) % 2])
@pytest.mark.parametrize("rows", [np.zeros((12, 4)), np.ones((12, 4)), np.eye(12, 4)])
def test_outcomes_without_a_signal_give_their_mean(rows: NDArray[np.float64], shares: NDArray[np.float64]) -> None:
    matrix = sparse.csr_matrix(rows, dtype=np.float32)
    model = fit_logistic(Examples(matrix, shares.astype(np.float64), np.ones(12), fractions(12)))
    np.testing.assert_allclose(logistic(model.predict(matrix)), shares.mean(), atol=0.1)


def test_without_two_inner_folds_the_strongest_penalty_is_taken() -> None:
    rows, shares, weight = planted()
    model = fit_logistic(Examples(sparse.csr_matrix(rows), shares, weight, np.zeros(N_ROWS)))
    assert model.penalty == pytest.approx(0.03 / 40)
