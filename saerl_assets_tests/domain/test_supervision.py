from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from saerl_assets.domain.supervision import known_values, supervise, why_not_learnable
from saerl_assets_tests.domain.feature_sets import label_frame, make_prompt_ids, no_labels, prompt_frame

NAMES = make_prompt_ids(20)
PROMPTS = prompt_frame(NAMES, n_evaluation=4)


def test_only_training_prompts_with_a_finite_value_are_learned_from() -> None:
    labels = pl.concat(
        [
            label_frame("wanted", [NAMES[2], NAMES[18], NAMES[0], "not there"], [0.2, 1.8, 0.0, 9.0]),
            label_frame("wanted", [NAMES[3], NAMES[4]], [np.nan, np.inf]),
            label_frame("other", [NAMES[1]], [5.0]),
        ]
    )
    found = supervise(PROMPTS, labels, "wanted", limit=None, seed=0)
    assert found.rows.tolist() == [0, 2]
    assert found.values.tolist() == [0.0, 0.2]
    assert found.left_out == (
        " Left out: 2 values not a finite number, 1 value of a prompt that is not in this version, "
        "1 value of a prompt set apart for evaluation."
    )


def test_known_values_include_evaluation_prompts() -> None:
    values = known_values(PROMPTS, label_frame("wanted", [NAMES[19], NAMES[5]], [1.5, np.nan]), "wanted")
    assert np.flatnonzero(np.isfinite(values)).tolist() == [19]
    assert values[19] == 1.5


def test_a_limit_keeps_a_subset_that_does_not_depend_on_the_order_of_labels() -> None:
    labels = label_frame("wanted", NAMES, np.arange(20.0))
    found = supervise(PROMPTS, labels, "wanted", limit=5, seed=0)
    again = supervise(PROMPTS, labels.reverse(), "wanted", limit=5, seed=0)
    more = supervise(PROMPTS, labels, "wanted", limit=8, seed=0)
    assert len(found.rows) == 5
    assert found.rows.tolist() == again.rows.tolist() == sorted(found.rows.tolist())
    assert set(found.rows.tolist()) < set(more.rows.tolist())
    assert found.values.tolist() == found.rows.tolist()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (no_labels(), ["No label 'correct'", "add [labels.correct] to the spec, or append outcomes"]),
        (
            label_frame("correct", NAMES[17:], [1, 0, 1]),
            ["label prompts of the training split", "Left out: 3"],
        ),
        (
            label_frame("correct", NAMES[:5], [1, 0, 1, 0, 1]),
            ["Only 5 training prompts", "quality.min_labels = 10", "label more prompts, or lower"],
        ),
        (label_frame("correct", NAMES[:1], [1]), ["Only 1 training prompt with"]),
        (
            label_frame("correct", NAMES[:12], [0.5] * 12),
            ["'correct' is 0.5 for all of its 12 training prompts", "supply values that differ"],
        ),
    ],
)
def test_what_is_missing_is_said_with_its_remedy(labels: pl.DataFrame, words: list[str]) -> None:
    found = supervise(PROMPTS, labels, "correct", limit=None, seed=0)
    reason = why_not_learnable(found, section="quality", min_labels=10)
    assert reason is not None
    for word in words:
        assert word in reason


def test_enough_different_labels_are_learnable() -> None:
    found = supervise(PROMPTS, label_frame("correct", NAMES[:10], [0, 1] * 5), "correct", limit=None, seed=0)
    assert why_not_learnable(found, section="quality", min_labels=10) is None


def test_a_label_that_the_spec_names_is_not_asked_for_again() -> None:
    """Its field holds no number in any row, and labels that cannot be read are not in the table."""
    found = supervise(PROMPTS, no_labels(), "correct", limit=None, seed=0, is_named=True)
    reason = why_not_learnable(found, section="quality", min_labels=10)
    assert reason is not None
    assert "the spec has [labels.correct], but no value of any of the 20 prompts could be read as a finite" in reason
    assert "add [labels" not in reason
