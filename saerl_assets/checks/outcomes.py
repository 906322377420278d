"""Checks of `rollouts` and `outcomes`.

Belongs here: that the policy's answers are whole, and that they tell prompts apart. Does not belong here: scoring.
"""

import dagster as dg
import polars as pl

from saerl_assets.checks.verdict import verdict
from saerl_assets.resources.home import HomeResource

MIN_MIXED_FRACTION = 0.1
"""Of prompts whose pass rate is neither 0 nor 1. With fewer, difficulty tells the hopeless ones apart and no more."""
MAX_TRUNCATED_FRACTION = 0.2
"""An answer that is cut off is hardly ever right, whatever the policy knows."""


@dg.asset_check(asset="rollouts", additional_ins={"prompts": dg.AssetIn("prompts")}, blocking=True)
def every_rollout_is_whole(
    context: dg.AssetCheckExecutionContext, home: HomeResource, rollouts: pl.DataFrame, prompts: pl.DataFrame
) -> dg.AssetCheckResult:
    """Where the spec has outcomes, every prompt that was answered has all of its answers, scored from 0 to 1."""
    outcomes = home.version(context.run.tags["dagster/partition"]).spec.outcomes
    return rollouts_are_whole(rollouts, prompts, n_rollouts=outcomes.n_rollouts if outcomes else None)


def rollouts_are_whole(rollouts: pl.DataFrame, prompts: pl.DataFrame, *, n_rollouts: int | None) -> dg.AssetCheckResult:
    """Rollouts held against the prompts and the spec's number; None for a spec without outcomes."""
    if n_rollouts is None:
        problems = [f"The spec has no outcomes, but there are {rollouts.height:,} rollouts."] if rollouts.height else []
        return verdict(problems, "The spec has no [outcomes], and there are no rollouts.")
    of_prompts = rollouts.group_by("prompt_id").agg(n=pl.len(), distinct=pl.col("sample").n_unique())
    counted = {
        "rollouts are of no prompt of the version": rollouts.join(prompts, on="prompt_id", how="anti").height,
        f"prompts do not have {n_rollouts} different answers": of_prompts.filter(
            (pl.col("n") != n_rollouts) | (pl.col("distinct") != n_rollouts)
        ).height,
        "scores are not from 0 to 1": rollouts.filter(~pl.col("score").is_between(0.0, 1.0)).height,
    }
    problems = [f"{number:,} {what}." for what, number in counted.items() if number]
    if rollouts.is_empty():
        problems.append("No prompt was answered.")
    figures = {"rollouts": rollouts.height, "prompts_answered": of_prompts.height}
    return verdict(problems, f"{of_prompts.height:,} prompts have {n_rollouts} answers each.", figures)


@dg.asset_check(asset="outcomes")
def outcomes_tell_prompts_apart(outcomes: pl.DataFrame) -> dg.AssetCheckResult:
    """Enough prompts are neither always right nor never, so that difficulty and quality can be learned from them."""
    if outcomes.is_empty():
        return verdict([], "No policy has answered.")
    rates = outcomes["pass_rate"].to_numpy()
    never, always = float((rates <= 0).mean()), float((rates >= 1).mean())
    figures = {"mean_pass_rate": float(rates.mean()), "never_right": never, "always_right": always}
    problem = ""
    if rates.min() == rates.max():
        problem = (
            f"Every pass rate is {rates[0]:g}, so that difficulty carries nothing: use prompts that are easier or "
            "harder for this policy, or look at completions in rollouts and at the verifier."
        )
    elif 1 - never - always < MIN_MIXED_FRACTION:
        problem = (
            f"{never:.0%} of the prompts are never answered right and {always:.0%} always: difficulty hardly tells the "
            "others apart, and a policy learns little from these."
        )
    fine = (
        f"{1 - never - always:.0%} of the prompts are answered right sometimes, {never:.0%} never, {always:.0%} always."
    )
    return verdict([problem] if problem else [], fine, figures, severity=dg.AssetCheckSeverity.WARN)


@dg.asset_check(asset="outcomes")
def few_answers_are_cut_off(outcomes: pl.DataFrame) -> dg.AssetCheckResult:
    """Few answers reach outcomes.max_new_tokens before they end: what is cut off is hardly ever right."""
    n_rollouts, n_truncated = int(outcomes["n_rollouts"].sum()), int(outcomes["n_truncated"].sum())
    share = n_truncated / n_rollouts if n_rollouts else 0.0
    said = f"{share:.0%} of {n_rollouts:,} answers were cut off"
    too_many = share > MAX_TRUNCATED_FRACTION
    problem = f"{said}, more than {MAX_TRUNCATED_FRACTION:.0%}: raise outcomes.max_new_tokens in another version."
    figures = {"truncated_fraction": share}
    return verdict([problem] if too_many else [], f"{said}.", figures, severity=dg.AssetCheckSeverity.WARN)
