"""Checks of `preference_pairs`.

Belongs here: that every pair can be trained on and every prompt has one. Does not belong here: judging single rows,
which the intake does.
"""

import dagster as dg
import polars as pl

from saerl_assets.checks.verdict import verdict
from saerl_assets.resources.home import HomeResource


@dg.asset_check(asset="preference_pairs", additional_ins={"prompts": dg.AssetIn("prompts")}, blocking=True)
def every_prompt_has_its_pairs(
    context: dg.AssetCheckExecutionContext,
    home: HomeResource,
    preference_pairs: pl.DataFrame,
    prompts: pl.DataFrame,
) -> dg.AssetCheckResult:
    """Where the spec names pairs, every prompt has some, numbered from 0, and no pair prefers nothing."""
    data = home.version(context.run.tags["dagster/partition"]).spec.data
    return pairs_are_whole(preference_pairs, prompts, wants_pairs=data.chosen is not None)


def pairs_are_whole(pairs: pl.DataFrame, prompts: pl.DataFrame, *, wants_pairs: bool) -> dg.AssetCheckResult:
    """Pairs held against the prompts and against one another."""
    of_prompts = pairs.group_by("prompt_id").agg(
        n=pl.len(), last=pl.col("pair").max(), distinct=pl.col("pair").n_unique()
    )
    counted = {
        "pairs belong to no prompt": pairs.join(prompts, on="prompt_id", how="anti").height,
        "prompts have no pair": prompts.join(pairs, on="prompt_id", how="anti").height if wants_pairs else 0,
        "pairs have the same answer twice": pairs.filter(pl.col("chosen") == pl.col("rejected")).height,
        "pairs lack an answer": pairs.filter(pl.any_horizontal(pl.col("chosen", "rejected") == "[]")).height,
        "prompts have pairs that are not numbered from 0": of_prompts.filter(
            (pl.col("distinct") != pl.col("n")) | (pl.col("last") + 1 != pl.col("n"))
        ).height,
    }
    problems = [f"{number} {what}." for what, number in counted.items() if number]
    figures = {"pairs": pairs.height, "prompts_with_pairs": of_prompts.height, "prompts": prompts.height}
    fine = "Every prompt has its pairs." if wants_pairs else "The spec names no pairs, and there are none."
    if not wants_pairs and pairs.height:
        problems.append(f"The spec names no pairs, but there are {pairs.height}.")
    return verdict(problems, fine, figures)
