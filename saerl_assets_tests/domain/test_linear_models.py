from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import sparse

from saerl_assets.domain.linear_models import (
    MIN_PROMPTS_ACTIVE,
    LinearModel,
    choose_penalty,
    fit_scaling,
    predict_held_out,
)
from saerl_assets_tests.domain.feature_sets import planted_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


def constant_model(value: float, penalty: float) -> LinearModel:
    return LinearModel(np.zeros(2), value, penalty)


def test_scaling_brings_features_to_variance_one_around_the_centre() -> None:
    dense = planted_rows(200, 10, seed=0)
    scaling = fit_scaling(sparse.csr_matrix(dense))
    scaled = scaling.apply(sparse.csr_matrix(dense)).toarray()
    np.testing.assert_allclose(scaled.std(axis=0), 1)
    np.testing.assert_allclose(scaled.mean(axis=0), scaling.centre)
    assert ((scaled == 0) == (dense == 0)).all()


def test_a_common_scale_is_one_factor_that_makes_the_mean_variance_one() -> None:
    dense = planted_rows(200, 10, seed=0) * np.linspace(0.1, 3, 10, dtype=np.float32)
    dense[:, 4] = 0
    scaling = fit_scaling(sparse.csr_matrix(dense)).common()
    usable = np.arange(10) != 4
    assert len(set(scaling.inverse[usable])) == 1
    assert scaling.inverse[4] == 0
    scaled = scaling.apply(sparse.csr_matrix(dense)).toarray()
    assert np.mean(scaled.var(axis=0)[usable]) == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(scaled.mean(axis=0), scaling.centre, atol=1e-9)
    nothing = fit_scaling(sparse.csr_matrix(np.zeros((5, 3), dtype=np.float32)))
    assert nothing.common() is nothing


def test_features_that_cannot_be_learned_from_are_scaled_to_nothing() -> None:
    dense = planted_rows(50, 4, seed=0, density=0.5)
    dense[:, 0] = 0
    dense[:, 1] = np.float32(0.1)
    dense[:, 2] = 0
    dense[: MIN_PROMPTS_ACTIVE - 1, 2] = 1
    scaling = fit_scaling(sparse.csr_matrix(dense))
    assert scaling.inverse[:3].tolist() == [0, 0, 0]
    assert scaling.inverse[3] > 0


def test_prediction_is_intercept_plus_weighted_features() -> None:
    dense = planted_rows(5, 3, seed=0, density=0.6)
    model = LinearModel(np.array([1.0, -2.0, 0.5]), 3.0, 1.0)
    np.testing.assert_allclose(model.predict(sparse.csr_matrix(dense)), dense.astype(np.float64) @ [1, -2, 0.5] + 3)


def test_penalties_are_weakened_until_the_summed_loss_rises_and_no_further() -> None:
    losses = {8.0: (5.0, 5.0), 4.0: (2.0, 4.0), 2.0: (3.0, 2.0), 1.0: (9.0, 1.0), 0.5: (0.0, 0.0)}
    seen = []

    def path(fold: int) -> Iterator[LinearModel]:
        for penalty in losses:
            seen.append((fold, penalty))
            yield constant_model(0.0, penalty)

    found = choose_penalty(
        [path(0), path(1)], [lambda model: losses[model.penalty][0], lambda model: losses[model.penalty][1]]
    )
    assert found == (2.0, 5.0)
    assert (0, 0.5) not in seen


def test_the_stronger_of_two_equal_penalties_is_chosen_and_none_without_folds() -> None:
    path = iter([constant_model(0.0, 2.0), constant_model(0.0, 1.0)])
    assert choose_penalty([path], [lambda _: 1.0]) == (2.0, 1.0)
    penalty, loss = choose_penalty([], [])
    assert np.isnan(penalty)
    assert loss == np.inf


def test_every_row_is_predicted_by_a_model_that_has_not_seen_it() -> None:
    matrix = sparse.csr_matrix(np.zeros((6, 2), dtype=np.float32))
    folds = np.array([0, 1, 2, 0, 1, 2])

    def fit(rows: NDArray[np.int64]) -> LinearModel:
        left_out = set(range(6)) - set(rows.tolist())
        return constant_model(float(sum(2**row for row in left_out)), float(len(rows)))

    held_out = predict_held_out(fit, matrix, folds)
    assert held_out.predictions.tolist() == [9, 18, 36, 9, 18, 36]
    assert held_out.penalties == pytest.approx([4, 4, 4])
