"""Kernel ridge against scikit-learn's ridge, and its leave-one-out predictions against leaving rows out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.linear_model import Ridge

from saerl_assets.domain.kernel_ridge import PENALTIES, fit_kernel_ridge, linear_kernels


def drawn(seed: int, n: int = 40, d: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, d)) * (rng.random((n, d)) < 0.6)
    return values, (values @ rng.normal(size=d) + rng.normal(size=n) + 5)[:, None]


TRAIN, TEST = np.arange(30), np.arange(30, 40)


@given(st.integers(0, 50))
def test_predictions_are_those_of_a_ridge_with_the_chosen_penalty(seed: int) -> None:
    values, goal = drawn(seed)
    kernel = linear_kernels(values)[0]
    scale = float(np.trace((values - values.mean(axis=0)) @ (values - values.mean(axis=0)).T)) / len(values)
    found = fit_kernel_ridge([kernel], goal, TRAIN, TEST)
    if found.kernel < 0:
        assert np.allclose(found.predictions, goal[TRAIN].mean())
        return
    ridge = Ridge(alpha=found.penalty * len(TRAIN) * scale).fit(values[TRAIN], goal[TRAIN, 0])
    assert np.allclose(found.predictions[:, 0], ridge.predict(values[TEST]), atol=1e-6)


@pytest.mark.parametrize("row", [0, 7, 29])
def test_a_row_left_out_is_predicted_by_the_others(row: int) -> None:
    values, goal = drawn(3)
    kernels = linear_kernels(values)[:1]
    found = fit_kernel_ridge(kernels, goal, TRAIN, TEST)
    rest = np.delete(TRAIN, row)
    scale = float(np.trace((values - values.mean(axis=0)) @ (values - values.mean(axis=0)).T)) / len(values)
    ridge = Ridge(alpha=found.penalty * len(TRAIN) * scale).fit(values[rest], goal[rest, 0])
    # the penalty is the same number in both; the fit of all rows gives the prediction without one exactly
    assert found.left_out[row, 0] == pytest.approx(float(ridge.predict(values[[row]])[0]), abs=1e-6)


@pytest.mark.parametrize("sizes", [(2,) * 15, (1, 1, 2, 3, 3, 5, 15)])
def test_rows_of_a_group_are_left_out_together(sizes: tuple[int, ...]) -> None:
    values, goal = drawn(3)
    rng = np.random.default_rng(0)
    groups = np.concatenate([rng.permutation(np.repeat(np.arange(len(sizes)), sizes)), np.full(10, 99)])
    kernels = linear_kernels(values)[:1]
    found = fit_kernel_ridge(kernels, goal, TRAIN, TEST, groups)
    scale = float(np.trace((values - values.mean(axis=0)) @ (values - values.mean(axis=0)).T)) / len(values)
    errors = {}
    for penalty in PENALTIES:
        left_out = np.zeros(30)
        for group in range(len(sizes)):
            rest, gone = TRAIN[groups[:30] != group], TRAIN[groups[:30] == group]
            ridge = Ridge(alpha=penalty * len(TRAIN) * scale).fit(values[rest], goal[rest, 0])
            left_out[gone] = ridge.predict(values[gone])
        errors[float(penalty)] = float(np.square(goal[:30, 0] - left_out).sum())
        if penalty == found.penalty:
            assert np.allclose(found.left_out[:, 0], left_out, atol=1e-5)
    assert found.penalty == min(errors, key=errors.__getitem__)


def test_groups_of_one_row_each_change_nothing_and_one_group_leaves_the_mean() -> None:
    values, goal = drawn(5)
    kernels = linear_kernels(values)
    plain, alone = (fit_kernel_ridge(kernels, goal, TRAIN, TEST, groups) for groups in (None, np.arange(40)[::-1]))
    assert np.array_equal(plain.predictions, alone.predictions)
    assert np.array_equal(plain.left_out, alone.left_out)
    together = fit_kernel_ridge(kernels, goal, TRAIN, TEST, np.zeros(40, dtype=np.int64))
    assert together.kernel == -1
    assert np.allclose(together.left_out, goal[TRAIN].mean())


def test_a_group_that_is_told_by_its_columns_alone_is_not_learned_by_heart() -> None:
    """Columns say which question it is and nothing else: left out one by one, rows look foretold by their likes."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 4)
    goal = rng.normal(size=20)[groups][:, None]
    kernels = linear_kernels(np.eye(20)[groups])
    train, test = np.arange(60), np.arange(60, 80)
    assert np.corrcoef(fit_kernel_ridge(kernels, goal, train, test).left_out[:, 0], goal[train, 0])[0, 1] > 0.99
    found = fit_kernel_ridge(kernels, goal, train, test, groups)
    assert found.kernel == -1
    rest = (goal[train].sum() - 4 * goal[train]) / 56
    assert np.allclose(found.left_out, rest), "without its question a row has but the mean of the others"


def test_sparse_and_dense_give_the_same_kernels_and_constants_none() -> None:
    values, _ = drawn(1)
    for one, other in zip(linear_kernels(values), linear_kernels(sparse.csr_matrix(values)), strict=True):
        assert np.allclose(one, other)
    assert linear_kernels(np.ones((5, 2))) == []
    assert len(linear_kernels(values / values.std(axis=0))) == 1, "already of variance 1"


def test_what_foretells_nothing_is_the_mean() -> None:
    rng = np.random.default_rng(0)
    goal = rng.normal(size=(40, 1))
    found = fit_kernel_ridge([], goal, TRAIN, TEST)
    assert np.allclose(found.predictions, goal[TRAIN].mean())
    assert found.left_out[0, 0] == pytest.approx(goal[TRAIN[1:]].mean())
    assert len(PENALTIES) > 5
