"""Checks of a trial: whole trainings, and a policy that learns."""

from __future__ import annotations

import numpy as np
import polars as pl

from saerl_assets.checks import training_trial
from saerl_assets.domain.trial import EVALUATION_SCHEMA, SUMMARY_SCHEMA, summarise_trial
from saerl_assets_tests.checks.cases import plain
from saerl_assets_tests.report.frames import trial_evaluations

every_arm_has_the_seeds_of_shuffle = plain(training_trial.every_arm_has_the_seeds_of_shuffle)
the_policy_learns = plain(training_trial.the_policy_learns)

EVALUATIONS = trial_evaluations(np.random.default_rng(0))
NOTHING = (pl.DataFrame(schema=SUMMARY_SCHEMA), pl.DataFrame(schema=EVALUATION_SCHEMA))


def summed_up(evaluations: pl.DataFrame) -> pl.DataFrame:
    return summarise_trial(evaluations, target=None, seed=0)


def test_a_whole_trial_of_a_policy_that_learns_passes() -> None:
    summary = summed_up(EVALUATIONS)
    assert every_arm_has_the_seeds_of_shuffle(summary, EVALUATIONS).passed
    assert the_policy_learns(summary).passed


def test_nothing_trained_is_nothing_wrong() -> None:
    assert every_arm_has_the_seeds_of_shuffle(*NOTHING).passed
    assert the_policy_learns(NOTHING[0]).passed


def test_an_arm_that_lacks_a_seed_is_named() -> None:
    partial = EVALUATIONS.filter(~((pl.col("arm") == "clustered") & (pl.col("seed") == 4)))
    found = every_arm_has_the_seeds_of_shuffle(summed_up(partial), partial)
    assert not found.passed
    assert "clustered has 4 of 5 seeds" in str(found.description)


def test_one_seed_is_too_few() -> None:
    single = EVALUATIONS.filter(pl.col("seed") == 0)
    found = every_arm_has_the_seeds_of_shuffle(summed_up(single), single)
    assert not found.passed
    assert "shuffle was trained 1 times" in str(found.description)


def test_a_policy_that_gains_nothing_is_told() -> None:
    flat = EVALUATIONS.with_columns(accuracy=pl.lit(0.2))
    found = the_policy_learns(summed_up(flat))
    assert not found.passed
    assert "from 20.0% to 20.0%: too little to count steps by" in str(found.description)
