"""Checks of `trial_summary`: that a trial can say something.

Belongs here: that trainings are whole and that the policy learns. Does not belong here: which order is better.
"""

from collections.abc import Sequence

import dagster as dg
import polars as pl

from saerl_assets.checks.verdict import verdict
from saerl_assets.domain.trial import BASELINE, MIN_SEEDS, arms_asked_for
from saerl_assets.resources.home import HomeResource

MIN_GAIN = 0.02
"""Points of accuracy, as a share, that the shuffled training must gain. Of less, steps to it say nothing."""


@dg.asset_check(asset="trial_summary", additional_ins={"trial_evaluations": dg.AssetIn("trial_evaluations")})
def every_arm_has_the_seeds_of_shuffle(
    context: dg.AssetCheckExecutionContext,
    home: HomeResource,
    trial_summary: pl.DataFrame,  # noqa: ARG001 - the check is of this table
    trial_evaluations: pl.DataFrame,
) -> dg.AssetCheckResult:
    """Every arm that the spec asks for was trained as often as the shuffled one, at least twice, to be compared."""
    spec = home.version(context.run.tags["dagster/partition"]).spec
    return judge_trainings(trial_evaluations, arms_asked_for(spec))


def judge_trainings(evaluations: pl.DataFrame, arms: Sequence[str]) -> dg.AssetCheckResult:
    """The trainings held against the arms that were asked for."""
    if evaluations.is_empty():
        return verdict([], "Nothing was trained.")
    trained = evaluations.group_by("arm").agg(pl.col("seed").unique())
    seeds = dict.fromkeys(arms, frozenset[int]()) | {arm: frozenset(found) for arm, found in trained.iter_rows()}
    base = seeds.get(BASELINE, frozenset())
    problems = [
        f"{arm} has {len(found)} of {len(base)} seeds: call saerl trial again, it goes on."
        for arm, found in sorted(seeds.items())
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
