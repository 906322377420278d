"""Checks of `trial_summary`: that a trial can say something.

Belongs here: that trainings are whole and that the policy learns. Does not belong here: which order is better.
"""

import dagster as dg
import polars as pl

from saerl_assets.checks.verdict import verdict
from saerl_assets.domain.trial import BASELINE, MIN_SEEDS

MIN_GAIN = 0.02
"""Points of accuracy, as a share, that the shuffled training must gain. Of less, steps to it say nothing."""


@dg.asset_check(asset="trial_summary", additional_ins={"trial_evaluations": dg.AssetIn("trial_evaluations")})
def every_arm_has_the_seeds_of_shuffle(
    trial_summary: pl.DataFrame, trial_evaluations: pl.DataFrame
) -> dg.AssetCheckResult:
    """Every arm was trained as often as the shuffled one, at least twice, so that they can be compared."""
    if trial_summary.is_empty():
        return verdict([], "Nothing was trained.")
    trained = trial_evaluations.group_by("arm").agg(pl.col("seed").unique().sort()).sort("arm")
    seeds = {str(arm): set(found) for arm, found in trained.iter_rows()}
    base = seeds.get(BASELINE, set())
    problems = [
        f"{arm} has {len(found)} of {len(base)} seeds: call saerl trial again, it goes on."
        for arm, found in seeds.items()
        if found != base
    ]
    if len(base) < MIN_SEEDS:
        problems.append(f"{BASELINE} was trained {len(base)} times: intervals need {MIN_SEEDS} seeds at least.")
    fine = f"{len(seeds)} arms with {len(base)} seeds each."
    return verdict(problems, fine, {"seeds": len(base)}, severity=dg.AssetCheckSeverity.WARN)


@dg.asset_check(asset="trial_summary")
def the_policy_learns(trial_summary: pl.DataFrame) -> dg.AssetCheckResult:
    """The shuffled training gains something: otherwise no order can be told from another."""
    base = trial_summary.filter(pl.col("arm") == BASELINE)
    if base.is_empty():
        return verdict([], "Nothing was trained in a shuffled order.")
    first, final = float(base["first_accuracy"][0]), float(base["final_accuracy"][0])
    said = f"In a shuffled order accuracy went from {first:.1%} to {final:.1%}"
    problem = f"{said}: too little to count steps by. Try another learning rate, more steps or easier prompts."
    failed = final - first < MIN_GAIN
    return verdict(
        [problem] if failed else [], f"{said}.", {"gain": final - first}, severity=dg.AssetCheckSeverity.WARN
    )
