"""Checks of a trial: whole trainings, and a policy that learns."""

from __future__ import annotations

import numpy as np
import polars as pl

from saerl_assets.checks import training_trial
from saerl_assets.checks.training_trial import judge_trainings
from saerl_assets.domain.trial import EVALUATION_SCHEMA, SUMMARY_SCHEMA, summarise_trial
from saerl_assets_tests.checks.cases import plain
from saerl_assets_tests.report.frames import trial_evaluations

the_policy_learns = plain(training_trial.the_policy_learns)

EVALUATIONS = trial_evaluations(np.random.default_rng(0))
ARMS = ["shuffle", "clustered", "easy_to_hard", "random_clusters"]


def summed_up(evaluations: pl.DataFrame) -> pl.DataFrame:
    return summarise_trial(evaluations, target=None, seed=0)


def test_a_whole_trial_of_a_policy_that_learns_passes() -> None:
    summary = summed_up(EVALUATIONS)
    assert judge_trainings(EVALUATIONS, ARMS).passed
    assert the_policy_learns(summary).passed


def test_nothing_trained_is_nothing_wrong() -> None:
    assert judge_trainings(pl.DataFrame(schema=EVALUATION_SCHEMA), ARMS).passed
    assert the_policy_learns(pl.DataFrame(schema=SUMMARY_SCHEMA)).passed


def test_an_arm_that_was_asked_for_and_not_trained_is_named() -> None:
    found = judge_trainings(EVALUATIONS, [*ARMS, "dense_state"])
    assert not found.passed
    assert "dense_state has 0 of 5 seeds" in str(found.description)


def test_an_arm_that_lacks_a_seed_is_named() -> None:
    partial = EVALUATIONS.filter(~((pl.col("arm") == "clustered") & (pl.col("seed") == 4)))
    found = judge_trainings(partial, ARMS)
    assert not found.passed
    assert "clustered has 4 of 5 seeds" in str(found.description)


def test_one_seed_is_too_few() -> None:
    single = EVALUATIONS.filter(pl.col("seed") == 0)
    found = judge_trainings(single, ARMS)
    assert not found.passed
    assert "shuffle was trained 1 times" in str(found.description)


def test_a_policy_that_gains_nothing_is_told() -> None:
    flat = EVALUATIONS.with_columns(accuracy=pl.lit(0.2))
    found = the_policy_learns(summed_up(flat))
    assert not found.passed
    assert "from 20.0% to 20.0%: too little to count steps by" in str(found.description)
