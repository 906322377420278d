from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saerl_assets.domain.folds import (
    N_INNER_FOLDS,
    N_OUTER_FOLDS,
    N_TUNING_ROWS,
    hash_fractions,
    held_out_parts,
    outer_folds,
    tuning_folds,
)
from saerl_assets_tests.domain.feature_sets import make_prompt_ids


def test_fractions_are_what_they_have_always_been() -> None:
    """A change here moves every prompt to another fold, in every version."""
    found = hash_fractions(["a", "b"], seed=0, purpose="test")
    assert found.tolist() == pytest.approx([0.7510796894113858, 0.9182873137734404], abs=1e-15)


def test_fractions_are_uniform() -> None:
    found = np.sort(hash_fractions(make_prompt_ids(5000), seed=3, purpose="test"))
    assert np.abs(found - np.linspace(0, 1, 5000)).max() < 0.03
    assert found.min() >= 0
    assert found.max() < 1


@given(st.lists(st.text(max_size=8), unique=True, max_size=20))
def test_a_prompt_keeps_its_fold_whatever_others_there_are(names: list[str]) -> None:
    together = dict(zip(names, outer_folds(names, seed=1).tolist(), strict=True))
    assert all(outer_folds([name], seed=1)[0] == fold for name, fold in together.items())
    assert set(together.values()) <= set(range(N_OUTER_FOLDS))


def test_seed_and_purpose_each_change_the_fractions() -> None:
    names = make_prompt_ids(500)
    base = hash_fractions(names, seed=0, purpose="one")
    for other in (hash_fractions(names, seed=1, purpose="one"), hash_fractions(names, seed=0, purpose="two")):
        assert abs(np.corrcoef(base, other)[0, 1]) < 0.15


def test_few_rows_are_all_tuned_on() -> None:
    rows, folds = tuning_folds(hash_fractions(make_prompt_ids(100), seed=0, purpose="inner"))
    assert rows.tolist() == list(range(100))
    assert set(folds.tolist()) == set(range(N_INNER_FOLDS))


def test_of_many_rows_a_bounded_number_is_tuned_on() -> None:
    rows, folds = tuning_folds(np.random.default_rng(0).random(50_000))
    assert abs(len(rows) - N_TUNING_ROWS) < 300
    assert np.bincount(folds, minlength=N_INNER_FOLDS).min() > 0.9 * len(rows) / N_INNER_FOLDS


@given(st.lists(st.integers(0, 4), max_size=30))
def test_parts_hold_out_every_row_once(folds: list[int]) -> None:
    parts = list(held_out_parts(np.array(folds, dtype=np.int64)))
    held_out = [row for _, test in parts for row in test.tolist()]
    assert sorted(held_out) == (list(range(len(folds))) if len(set(folds)) > 1 else [])
    for train, test in parts:
        assert len(train) > 0
        assert sorted([*train.tolist(), *test.tolist()]) == list(range(len(folds)))
