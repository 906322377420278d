from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import approx_fprime
from sklearn.linear_model import LogisticRegression

from saerl_assets.domain.examples import Examples
from saerl_assets.domain.folds import hash_fractions
from saerl_assets.domain.linear_models import fit_scaling
from saerl_assets.domain.logistic_regression import (
    SCALES,
    Penalty,
    Scale,
    _Objective,
    choose_logistic,
    fit_logistic,
    log_loss,
    logistic,
    logistic_path,
)
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
@pytest.mark.parametrize("scale", SCALES)
def test_the_fit_is_the_two_row_regression_of_scikit_learn(inverse_penalty: float, scale: Scale) -> None:
    rows, shares, weight = planted()
    (ours,) = logistic_path(Examples(sparse.csr_matrix(rows), shares, weight, fractions()), [inverse_penalty], scale)
    centred = rows.astype(np.float64) - rows.astype(np.float64).mean(axis=0)
    deviation = centred.std(axis=0)
    dense = centred / (deviation if scale == "unit" else np.sqrt(np.mean(deviation**2)))
    theirs = LogisticRegression(C=inverse_penalty, tol=1e-8, max_iter=1000)
    theirs.fit(
        np.vstack([dense, dense]),
        np.repeat([1, 0], N_ROWS),
        sample_weight=np.concatenate([weight * shares, weight * (1 - shares)]),
    )
    np.testing.assert_allclose(ours.predict(sparse.csr_matrix(rows)), theirs.decision_function(dense), atol=0.01)


def told_by(columns: slice) -> tuple[Examples, NDArray[np.float64]]:
    """Two strong features among many weak ones, and outcomes that some of them make; the logit of each row."""
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(800, 400)) * np.where(np.arange(400) < 2, 1.0, 0.02)
    logit = 4.0 * rows[:, columns].sum(axis=1) / rows[:, columns].sum(axis=1).std()
    shares = (rng.random(800) < logistic(logit)).astype(np.float64)
    return Examples(sparse.csr_matrix(rows, dtype=np.float32), shares, np.ones(800), fractions(800)), logit


@pytest.mark.parametrize(("columns", "scale"), [(slice(0, 2), "common"), (slice(2, 400), "unit")])
def test_the_scale_is_that_under_which_new_rows_are_predicted_better(columns: slice, scale: Scale) -> None:
    examples, logit = told_by(columns)
    known, new = examples.take(np.arange(400)), np.arange(400, 800)
    chosen = choose_logistic(known)
    assert chosen.scale == scale
    agreement = {}
    for each in SCALES:
        paths = logistic_path(known, [variance / 400 for variance in (0.1, 1.0, 10.0)], each)
        predicted = [model.predict(examples.matrix[new]) for model in paths]
        agreement[each] = max(float(np.corrcoef(found, logit[new])[0, 1]) for found in predicted)
    assert max(agreement, key=agreement.__getitem__) == scale
    fitted = fit_logistic(known).predict(examples.matrix[new])
    assert np.corrcoef(fitted, logit[new])[0, 1] > min(agreement.values())


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
    examples = Examples(sparse.csr_matrix(rows), shares, weight, np.zeros(N_ROWS))
    assert choose_logistic(examples) == Penalty(0.03 / 40, "unit")
