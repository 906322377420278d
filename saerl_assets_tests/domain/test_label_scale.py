from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from saerl_assets.domain.label_scale import TIE_BREAK, LabelScale


def test_scores_come_to_lie_on_the_labels_scale() -> None:
    rng = np.random.default_rng(0)
    score = rng.normal(size=2_000)
    label = 100 / (1 + np.exp(-3 * score)) + rng.normal(size=2_000) * 5
    found = LabelScale.fit(score[:1_000], label[:1_000]).apply(score[1_000:])
    assert np.corrcoef(found, label[1_000:])[0, 1] > 0.97
    assert abs(found.mean() - label.mean()) < 3


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 4)), min_size=2, max_size=40),
    st.lists(st.integers(-200, 200), min_size=2, max_size=20, unique=True),
)
def test_the_order_stays_strictly_and_the_labels_range_is_kept(known: list[tuple[int, int]], scores: list[int]) -> None:
    score, label = np.array(known, dtype=float).T
    scale = LabelScale.fit(score, label)
    found = scale.apply(np.sort(np.array(scores, dtype=float)))
    assert (np.diff(found) > 0).all(), "prompts of one step are told apart by their score"
    is_level = scale.levels[0] == scale.levels[-1]
    assert found.min() >= label.min(), "a difficulty is never a tiny negative number"
    assert found.max() <= label.max() + (TIE_BREAK if is_level else 0)


def test_what_ranks_the_wrong_way_round_is_levelled_but_keeps_its_order() -> None:
    score = np.arange(50.0)
    found = LabelScale.fit(score, -score).apply(score)
    assert np.ptp(found) < 1e-4
    assert (np.diff(found) > 0).all()
