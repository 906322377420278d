"""Ridge: the weights of the textbook formula, from few rows and from many, whatever stands side by side."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import spearmanr

from saerl_assets.domain import ridge
from saerl_assets.domain.ridge import column_scales, fit_ridge
from saerl_assets_tests.domain.feature_sets import planted_rows

N, WIDTH = 300, 40


def planted(n: int = N, *, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    rows = planted_rows(n, WIDTH, seed=0, density=0.3)
    target = rows[:, :8] @ rng.normal(size=8) + noise * rng.normal(size=n)
    return rows, target, rng.random(n)


def test_the_weights_are_those_of_the_normal_equations() -> None:
    rows, target, fractions = planted()
    matrix = sparse.csr_matrix(rows)
    model = fit_ridge(matrix, target, fractions)
    centred = rows - rows.mean(axis=0, dtype=np.float64)
    found = False
    for scale in column_scales(matrix, (WIDTH,)):
        scaled = centred * scale
        gram = scaled.T @ scaled + model.penalty * N * np.eye(WIDTH)
        weights = scale * np.linalg.solve(gram, scaled.T @ (target - target.mean()))
        found |= bool(np.allclose(weights, model.coefficients, rtol=1e-6, atol=1e-8))
    assert found
    assert model.predict(matrix).mean() == pytest.approx(target.mean())


def test_it_finds_what_was_planted() -> None:
    rows, target, fractions = planted(600)
    model = fit_ridge(sparse.csr_matrix(rows[:400]), target[:400], fractions[:400])
    assert spearmanr(model.predict(sparse.csr_matrix(rows[400:])), target[400:]).statistic > 0.85


def test_many_rows_are_solved_to_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The penalty that few rows choose is kept, and the solver reaches the formula's weights."""
    rows, target, fractions = planted(1_000)
    matrix = sparse.csr_matrix(rows)
    exact = fit_ridge(matrix, target, fractions)
    monkeypatch.setattr(ridge, "MAX_KERNEL_ROWS", 500)
    solved = fit_ridge(matrix, target, fractions)
    unseen = sparse.csr_matrix(planted_rows(200, WIDTH, seed=5, density=0.3))
    assert spearmanr(exact.predict(unseen), solved.predict(unseen)).statistic > 0.999
    chosen = np.sort(np.argsort(fractions, kind="stable")[:500])
    centred = rows - rows.mean(axis=0, dtype=np.float64)
    errors = []
    for scale in column_scales(matrix[chosen], (WIDTH,)):
        scaled = centred * scale
        gram = scaled.T @ scaled + solved.penalty * 500 * np.eye(WIDTH)
        weights = scale * np.linalg.solve(gram, scaled.T @ (target - target.mean()))
        errors.append(float(np.abs(weights - solved.coefficients).max() / np.abs(weights).max()))
    assert min(errors) < 1e-4


def test_a_wide_part_does_not_drown_a_narrow_one() -> None:
    rng = np.random.default_rng(0)
    wide, narrow = rng.normal(size=(200, 500)), rng.normal(size=(200, 1))
    matrix = sparse.csr_matrix(np.concatenate([wide, narrow], axis=1), dtype=np.float32)
    for scale in column_scales(matrix, (500, 1)):
        spread = (matrix.toarray() * scale).var(axis=0)
        assert spread[:500].sum() == pytest.approx(0.5, rel=1e-5)
        assert spread[500] == pytest.approx(0.5, rel=1e-5)
    target = narrow[:, 0] + 0.5 * rng.normal(size=200)
    apart = fit_ridge(matrix, target, rng.random(200), (500, 1))
    alike = fit_ridge(matrix, target, rng.random(200))
    unseen = rng.normal(size=(400, 501))
    rank = [
        spearmanr(model.predict(sparse.csr_matrix(unseen, dtype=np.float32)), unseen[:, 500]).statistic
        for model in (apart, alike)
    ]
    assert rank[0] > 0.8
    assert rank[0] > rank[1] + 0.1


@pytest.mark.parametrize("rows", [np.zeros((30, 4)), np.ones((30, 4))])
def test_columns_that_say_nothing_get_no_weight(rows: np.ndarray) -> None:
    target = np.arange(30.0)
    model = fit_ridge(sparse.csr_matrix(rows, dtype=np.float32), target, np.linspace(0, 0.9, 30))
    assert not model.coefficients.any()
    assert model.intercept == pytest.approx(target.mean())


def test_noise_is_not_followed() -> None:
    rows, target, fractions = planted()
    shuffled = np.random.default_rng(3).permutation(target)
    model = fit_ridge(sparse.csr_matrix(rows), shuffled, fractions)
    assert np.var(model.predict(sparse.csr_matrix(rows))) < 0.2 * np.var(shuffled)


def test_rows_of_one_hash_are_left_out_together_where_the_penalty_is_chosen() -> None:
    """Columns that name the question alone foretell its other responses and no other question."""
    rng = np.random.default_rng(0)
    question = np.repeat(np.arange(60), 4)
    matrix = sparse.csr_matrix(np.eye(60, dtype=np.float32)[question])
    target = rng.normal(size=60)[question]
    by_row = fit_ridge(matrix, target, rng.random(240))
    by_question = fit_ridge(matrix, target, rng.random(60)[question])
    assert np.std(by_row.predict(matrix)) > 0.9 * np.std(target)
    assert np.std(by_question.predict(matrix)) < 0.1 * np.std(target)
