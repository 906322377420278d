"""Rankings: figures with intervals that cover, and differences to length that are told from none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from saerl_assets.domain.ranking import Ranking, _spearman_by_row

N = 500
RNG = np.random.default_rng(0)
FOLDS = RNG.integers(0, 5, N)
TARGET = RNG.normal(size=N)


def noisy(amount: float, seed: int = 1) -> np.ndarray:
    return np.asarray(TARGET + amount * np.random.default_rng(seed).normal(size=N))


def test_a_figure_lies_in_its_interval_and_agrees_with_scipy() -> None:
    score = noisy(1.0)
    found = Ranking(TARGET, FOLDS, noisy(5.0, 2), 0).of(score)
    within = np.average(
        [spearmanr(score[fold == FOLDS], TARGET[fold == FOLDS]).statistic for fold in range(5)],
        weights=np.bincount(FOLDS),
    )
    assert found["spearman"] == pytest.approx(within)
    assert found["low"] < found["spearman"] < found["high"]  # type: ignore[operator]
    assert 0.03 < found["high"] - found["low"] < 0.15  # type: ignore[operator]
    assert 0.3 < found["r2"] < 0.6  # type: ignore[operator]
    assert found["over_length_low"] > 0  # type: ignore[operator]


@pytest.mark.parametrize("sign", [1, -1])
def test_what_is_as_good_as_length_is_not_told_to_be_better(sign: int) -> None:
    """Length may rank the other way round; it counts by how well it ranks."""
    ranking = Ranking(TARGET, FOLDS, sign * noisy(1.5, 2), 0)
    found = ranking.of(noisy(1.5, 3))
    assert found["over_length_low"] < 0 < found["over_length_high"]  # type: ignore[operator]
    assert ranking.of(noisy(0.5, 4))["over_length_low"] > 0  # type: ignore[operator]


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    covered = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        target, noise = rng.normal(size=(2, 200))
        found = Ranking(target, rng.integers(0, 5, 200), rng.normal(size=200), seed).of(target + noise)
        covered += found["low"] <= 0.69 <= found["high"]  # type: ignore[operator]
    assert 34 <= covered <= 40, "Spearman of two normals with correlation 0.707 is 0.690"


def test_rows_of_one_group_do_not_tell_more_than_the_group() -> None:
    """Every row four times is no more evidence: the interval is that of the rows once."""
    once = Ranking(TARGET, FOLDS, noisy(5.0, 2), 0).of(noisy(1.0))
    again = np.repeat(np.arange(N), 4)
    few = Ranking(TARGET[again], FOLDS[again], noisy(5.0, 2)[again], 0, again).of(noisy(1.0)[again])
    many = Ranking(TARGET[again], FOLDS[again], noisy(5.0, 2)[again], 0).of(noisy(1.0)[again])
    width, width_few, width_many = (found["high"] - found["low"] for found in (once, few, many))  # type: ignore[operator]
    assert width_few == pytest.approx(width, rel=0.25)
    assert width_many < 0.65 * width


def test_a_score_that_is_the_same_for_all_is_unknown() -> None:
    found = Ranking(TARGET, FOLDS, noisy(1.0), 0).of(np.ones(N))
    assert found["spearman"] is None
    assert found["low"] is None


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5])
def test_few_rows_are_ranked_together_or_not_at_all(n: int) -> None:
    target = np.arange(float(n))
    found = Ranking(target, np.arange(n) % 5, target, 0).of(target)
    assert found["spearman"] == (pytest.approx(1.0) if n >= 3 else None)


def test_rows_of_samples_are_correlated_as_one_by_one() -> None:
    rng = np.random.default_rng(1)
    scores, labels = rng.integers(0, 6, (2, 20, 9)).astype(float)
    scores[0] = 2.0
    found = _spearman_by_row(scores, labels)
    assert np.isnan(found[0])
    one_by_one = [spearmanr(a, b).statistic for a, b in zip(scores[1:], labels[1:], strict=True)]
    np.testing.assert_allclose(found[1:], one_by_one)
