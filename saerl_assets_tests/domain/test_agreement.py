from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from saerl_assets.domain.agreement import auroc, brier, mean_over_folds, r_squared, spearman

if TYPE_CHECKING:
    from numpy.typing import NDArray

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=3, max_size=20)


def columns(pairs: list[tuple[int, int]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = np.array(pairs, dtype=np.float64).T
    return first, second


@settings(deadline=None)  # the first example imports scikit-learn or scipy
@given(PAIRS)
def test_spearman_agrees_with_scipy(pairs: list[tuple[int, int]]) -> None:
    score, label = columns(pairs)
    assume(np.ptp(score) > 0 and np.ptp(label) > 0)
    assert spearman(score, label) == pytest.approx(spearmanr(score, label).statistic)


@pytest.mark.parametrize(
    ("score", "label"),
    [([], []), ([1.0, 2.0], [1.0, 2.0]), ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]), ([1.0, 2.0, 3.0], [4.0] * 3)],
)
def test_spearman_is_undefined_for_too_few_or_constant_rows(score: list[float], label: list[float]) -> None:
    assert spearman(np.array(score), np.array(label)) is None


@settings(deadline=None)  # the first example imports scikit-learn or scipy
@given(PAIRS, st.integers(0, 99))
def test_auroc_is_the_share_of_outcome_pairs_in_the_right_order(pairs: list[tuple[int, int]], seed: int) -> None:
    """Against its definition, over every pair of a correct and a wrong rollout."""
    score, correct = columns(pairs)
    share = correct / 4
    weight = np.random.default_rng(seed).integers(1, 9, len(pairs)).astype(np.float64)
    wins = total = 0.0
    for i in range(len(pairs)):
        for j in range(len(pairs)):
            n_pairs = weight[i] * share[i] * weight[j] * (1 - share[j])
            wins += n_pairs * (1.0 if score[i] > score[j] else 0.5 if score[i] == score[j] else 0.0)
            total += n_pairs
    assume(total > 0)
    assert auroc(score, share, weight) == pytest.approx(wins / total)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_auroc_is_undefined_for_one_class(share: float) -> None:
    assert auroc(np.arange(4.0), np.full(4, share), np.ones(4)) is None


def test_brier_counts_every_outcome() -> None:
    """Three of four right at probability 0.5 and one sure miss: (0.25 x 4 + 1 x 4) / 8."""
    found = brier(np.array([0.5, 1.0]), np.array([0.75, 0.0]), np.array([4.0, 4.0]))
    assert found == pytest.approx(0.625)


def test_r_squared_is_measured_from_the_base() -> None:
    label, base = np.array([0.0, 2.0, 4.0]), np.full(3, 2.0)
    assert r_squared(label, label, base) == 1
    assert r_squared(base, label, base) == 0
    assert r_squared(np.array([4.0, 2.0, 0.0]), label, base) == -3
    assert r_squared(label, base, base) is None


def test_the_mean_over_folds_weighs_by_size_and_skips_what_is_undefined() -> None:
    folds = np.array([0, 0, 0, 1, 2, 2])
    values = {0: 1.0, 1: None, 2: 6.0}
    assert mean_over_folds(lambda rows: values[folds[rows[0]]], folds) == pytest.approx((3 * 1 + 2 * 6) / 5)
    assert mean_over_folds(lambda _: None, folds) is None
