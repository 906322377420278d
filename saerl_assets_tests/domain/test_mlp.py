from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import sparse

from saerl_assets.domain.examples import Examples
from saerl_assets.domain.folds import hash_fractions
from saerl_assets.domain.mlp import N_COMPONENTS, N_MEMBERS, WEIGHT_DECAYS, fit_mlp, mlp_path
from saerl_assets.domain.threads import one_thread
from saerl_assets_tests.domain.feature_sets import make_prompt_ids, planted_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


@pytest.fixture(autouse=True)
def one_core() -> Iterator[None]:
    """As `train_probe` has it: on small matrices threads only get in each other's way."""
    with one_thread():
        yield


def examples(rows: NDArray[np.floating], shares: NDArray[np.float64], *, seed: int = 0) -> Examples:
    fractions = hash_fractions(make_prompt_ids(len(rows)), seed=0, purpose="test")
    return Examples(sparse.csr_matrix(rows, dtype=np.float32), shares, np.ones(len(rows)), fractions, seed)


def test_it_learns_what_no_line_can_tell() -> None:
    rows = np.random.default_rng(0).normal(size=(800, 3))
    shares = (rows[:, 0] * rows[:, 1] > 0).astype(np.float64)
    model = fit_mlp(examples(rows[:600], shares[:600]))
    predicted = model.predict(sparse.csr_matrix(rows[600:], dtype=np.float32))
    assert np.mean((predicted > 0.5) == shares[600:]) > 0.85


def test_wide_features_are_reduced_and_the_scale_of_a_feature_does_not_matter() -> None:
    rows = planted_rows(300, 400, seed=0)
    shares = (rows[:, 0] > 0).astype(np.float64)
    scale = np.ones(400, dtype=np.float32)
    scale[7] = 1024.0
    (plain,), (scaled,) = (list(mlp_path(examples(each, shares), [1.0])) for each in (rows, rows * scale))
    assert plain.projection.shape == (400, N_COMPONENTS)
    assert plain.first.shape == (N_MEMBERS, N_COMPONENTS, 64)
    reduced = sparse.csr_matrix(rows) @ plain.projection
    assert np.mean(reduced**2) == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(
        scaled.predict(sparse.csr_matrix(rows * scale)), plain.predict(sparse.csr_matrix(rows)), atol=0.02
    )


def test_members_differ_and_the_same_seed_gives_the_same_bytes() -> None:
    rows, shares = planted_rows(60, 20, seed=0), (np.arange(60) % 2).astype(np.float64)
    one, again, other = (next(mlp_path(examples(rows, shares, seed=seed), [1.0])) for seed in (0, 0, 9))
    assert one.first.tobytes() == again.first.tobytes() != other.first.tobytes()
    assert not np.array_equal(one.first[0], one.first[1])


def test_a_stronger_weight_decay_predicts_nearer_to_the_mean() -> None:
    rows = planted_rows(150, 30, seed=1)
    shares = (rows[:, 0] > 0).astype(np.float64)
    models = mlp_path(examples(rows, shares), WEIGHT_DECAYS)
    spread = [float(model.predict(sparse.csr_matrix(rows)).std()) for model in models]
    assert spread == sorted(spread)


@pytest.mark.parametrize("rows", [np.zeros((12, 4)), np.ones((12, 4)), np.eye(12, 4), np.zeros((2, 3))])
def test_rows_without_a_signal_give_something_finite(rows: NDArray[np.float64]) -> None:
    model = fit_mlp(examples(rows, (np.arange(len(rows)) % 2).astype(np.float64)))
    assert np.isfinite(model.predict(sparse.csr_matrix(rows, dtype=np.float32))).all()
