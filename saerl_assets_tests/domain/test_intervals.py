from __future__ import annotations

import numpy as np
import pytest

from saerl_assets.domain.agreement import auroc
from saerl_assets.domain.intervals import _areas, auroc_interval


def test_the_fast_area_is_that_of_scikit_learn_with_ties_shares_and_weights() -> None:
    rng = np.random.default_rng(0)
    score = rng.integers(0, 20, 200).astype(np.float64)
    share, weight = rng.random(200), rng.integers(0, 4, (5, 200)).astype(np.float64)
    found = _areas(score, share, weight)
    assert found.tolist() == pytest.approx([auroc(score, share, each) for each in weight], rel=1e-12)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Two normal distributions one standard deviation apart have an area of Phi(1 / sqrt 2) = 0.760."""
    rng, inside = np.random.default_rng(0), 0
    for seed in range(60):
        truth = rng.integers(0, 2, 150).astype(np.float64)
        found = auroc_interval(rng.normal(truth), truth, np.ones(150), np.arange(150) % 2, np.arange(150), seed=seed)
        assert found is not None
        inside += found[0] < 0.760 < found[1]
    assert 52 <= inside <= 60


def test_rows_of_one_group_tell_no_more_than_the_group() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 100).astype(np.float64)
    score = rng.normal(truth)
    rows = np.repeat(np.arange(100), 9)
    one = np.zeros(900, dtype=np.int64)
    apart = auroc_interval(score[rows], truth[rows], np.ones(900), one, np.arange(900), seed=0)
    together = auroc_interval(score[rows], truth[rows], np.ones(900), one, rows, seed=0)
    assert apart is not None
    assert together is not None
    assert together[1] - together[0] > 2 * (apart[1] - apart[0])


@pytest.mark.parametrize("n", [0, 1, 20])
def test_one_class_has_no_interval(n: int) -> None:
    zeros = np.zeros(n, dtype=np.int64)
    assert auroc_interval(np.arange(n, dtype=np.float64), np.ones(n), np.ones(n), zeros, np.arange(n), seed=0) is None
