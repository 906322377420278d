from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from saerl_assets.domain.calibration import (
    MIN_ROWS_ISOTONIC,
    calibration_curve,
    calibration_error,
    fit_calibration,
)
from saerl_assets.domain.logistic_regression import logistic
from saerl_assets_tests.domain.table_shapes import assert_is_table

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=4_000)
OUTCOMES = RNG.binomial(1, logistic(0.7 * SCORES - 1)).astype(np.float64)
ONES = np.ones(4_000)


@pytest.mark.parametrize(("n", "method"), [(999, "platt"), (MIN_ROWS_ISOTONIC, "isotonic"), (4_000, "isotonic")])
def test_the_method_follows_from_the_number_of_labels_and_probabilities_hold(n: int, method: str) -> None:
    found = fit_calibration(SCORES[:n], OUTCOMES[:n], ONES[:n])
    assert found.method == method
    truth = logistic(0.7 * SCORES - 1)
    assert np.abs(found.apply(SCORES) - truth).mean() < 0.05


def test_platt_finds_slope_and_intercept_on_any_scale() -> None:
    few = slice(0, 900)
    found = fit_calibration(100 * SCORES[few] + 50, OUTCOMES[few], ONES[few])
    plain = fit_calibration(SCORES[few], OUTCOMES[few], ONES[few])
    np.testing.assert_allclose(found.apply(100 * SCORES + 50), plain.apply(SCORES), atol=1e-4)
    assert plain.points[0] == pytest.approx(0.7, abs=0.2)
    assert plain.values[0] == pytest.approx(-1, abs=0.2)


def test_isotonic_is_scikit_learns() -> None:
    found = fit_calibration(SCORES, OUTCOMES, ONES)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(SCORES, OUTCOMES)
    fresh = np.linspace(-9, 9, 101)
    np.testing.assert_allclose(found.apply(fresh), theirs.predict(fresh), atol=1e-12)


@pytest.mark.parametrize("n", [20, 2_000])
def test_a_score_that_ranks_the_wrong_way_round_says_nothing_but_the_base_rate(n: int) -> None:
    scores = np.arange(n, dtype=np.float64)
    outcomes = (scores < n // 4).astype(np.float64)
    found = fit_calibration(scores, outcomes, np.ones(n))
    np.testing.assert_allclose(found.apply(scores), 0.25, atol=0.04)


def test_a_perfect_separation_of_few_rows_is_no_certainty() -> None:
    scores, outcomes = np.repeat([-1.0, 1.0], 10), np.repeat([0.0, 1.0], 10)
    low, high = fit_calibration(scores, outcomes, np.ones(20)).apply(np.array([-1.0, 1.0]))
    assert low == pytest.approx(1 / 12, abs=1e-3)
    assert high == pytest.approx(11 / 12, abs=1e-3)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(0, 1), st.floats(0.1, 10)), min_size=1, max_size=30),
    st.booleans(),
)
def test_probabilities_rise_with_the_score(rows: list[tuple[float, float, float]], many: bool) -> None:
    scores, shares, weight = (np.array(column) for column in zip(*rows, strict=True))
    if many:
        times = MIN_ROWS_ISOTONIC // len(rows) + 1
        scores, shares, weight = (np.tile(column, times) for column in (scores, shares, weight))
    found = fit_calibration(scores, shares, weight)
    probability = found.apply(np.linspace(-2e3, 2e3, 50))
    assert ((probability >= 0) & (probability <= 1)).all()
    assert (np.diff(probability) >= -1e-12).all()


def test_the_curve_is_that_of_its_bins() -> None:
    probability = np.repeat([0.1, 0.6], 60)
    shares = np.concatenate([np.repeat([0.0, 1.0], 30), np.full(60, 0.5)])
    curve = calibration_curve("logistic", probability, shares, np.ones(120))
    assert_is_table(curve, "probe_calibration")
    assert curve["n_rows"].to_list() == [60, 60]
    assert curve["predicted"].to_list() == pytest.approx([0.1, 0.6])
    assert curve["observed"].to_list() == pytest.approx([0.5, 0.5])
    # Wilson: (0.5 + z^2 / 120 -+ z sqrt(0.25 / 60 + z^2 / 14,400)) / (1 + z^2 / 60) with z = 1.96
    assert curve["observed_low"].to_list() == pytest.approx([0.3773, 0.3773], abs=1e-3)
    assert calibration_error(curve) == pytest.approx((0.4 + 0.1) / 2)


@pytest.mark.parametrize(("n", "n_bins"), [(1, 1), (99, 1), (100, 2), (4_000, 10)])
def test_few_rows_make_few_bins(n: int, n_bins: int) -> None:
    curve = calibration_curve("mlp", np.linspace(0, 1, n), np.zeros(n), np.ones(n))
    assert len(curve) == n_bins
    assert curve["n_rows"].sum() == n
    assert curve["predicted"].is_sorted()
