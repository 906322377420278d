"""Checks of `difficulty_scores` and `difficulty_proxy`.

Belongs here: that every prompt has a usable score. Does not belong here: which score is used.
"""

import dagster as dg
import polars as pl

from saerl_assets.checks.verdict import verdict
from saerl_assets.domain.spec import DifficultySpec
from saerl_assets.resources.home import HomeResource


@dg.asset_check(asset="difficulty_scores", additional_ins={"prompts": dg.AssetIn("prompts")}, blocking=True)
def every_prompt_scored(difficulty_scores: pl.DataFrame, prompts: pl.DataFrame) -> dg.AssetCheckResult:
    """Every prompt has a finite score and a rank between 0 and 1 that follows it."""
    problems = []
    if set(difficulty_scores["prompt_id"]) != set(prompts["prompt_id"]):
        problems.append("The scored prompts are not the version's prompts.")
    if not difficulty_scores["difficulty"].is_finite().all():
        problems.append("Some scores are not finite.")
    ranks = difficulty_scores.sort("difficulty")["difficulty_rank"]
    if not (ranks.is_between(0.0, 1.0).all() and ranks.is_sorted()):
        problems.append("The ranks do not follow the scores.")
    names = ", ".join(difficulty_scores["score_name"].unique().sort())
    return verdict(problems, f"Every prompt has a score ({names}).", {"n_scores": difficulty_scores.height})


@dg.asset_check(asset="difficulty_scores")
def range_is_of_a_score_that_was_asked_for(
    context: dg.AssetCheckExecutionContext, home: HomeResource, difficulty_scores: pl.DataFrame
) -> dg.AssetCheckResult:
    """No prompt is left out by its summed activation because there is no proxy."""
    spec = home.version(context.run.tags["dagster/partition"]).spec.difficulty
    return range_was_meant(spec, difficulty_scores["score_name"].unique().sort().to_list())


def range_was_meant(spec: DifficultySpec, names: list[str]) -> dg.AssetCheckResult:
    """The range of a spec against the scores in use, by their names."""
    by_default = spec.has_range and spec.score != "magnitude" and "magnitude" in names
    problem = (
        "difficulty.min_rank and max_rank leave prompts out by their summed activation, because there is no proxy "
        "(difficulty_proxy says why): label more prompts, or ask for the activation, difficulty.score = 'magnitude'."
    )
    return verdict(
        [problem] if by_default else [],
        "Prompts are left out by the score that was asked for." if spec.has_range else "Every rank is kept.",
        {"scores": ", ".join(names)},
        severity=dg.AssetCheckSeverity.WARN,
    )


@dg.asset_check(asset="difficulty_proxy")
def proxy_beats_length(difficulty_proxy: pl.DataFrame) -> dg.AssetCheckResult:
    """On labelled prompts that it was not fitted to, the proxy is shown to rank better than their length does."""
    held_out = difficulty_proxy.filter(pl.col("rows") == "held_out")
    figures = {
        name: value for name, value in held_out.select("score_name", "spearman").iter_rows() if value is not None
    }
    if "proxy" not in figures:
        words = " ".join(difficulty_proxy.filter(pl.col("score_name") == "proxy")["explanation"])
        return verdict([], words or "No proxy was learned.", figures)
    row = held_out.row(by_predicate=pl.col("score_name") == "proxy", named=True)
    said = (
        f"The proxy's rank correlation is {figures['proxy']:.2f}, that of plain length {figures.get('length', 0.0):.2f}"
    )
    over, low, high = row["over_length"], row["over_length_low"], row["over_length_high"]
    if over is None:  # length ranks nothing here, so any order is better
        is_better = figures["proxy"] > 0
    else:
        is_better = over > 0 and (low is None or low > 0)
        if low is not None:
            said += f"; the difference lies between {low:+.2f} and {high:+.2f}"
    doubt = "" if is_better else ": it is not shown to be better than sorting by length"
    return verdict(
        [] if is_better else [f"{said}{doubt}."],
        f"{said}.",
        figures,
        severity=dg.AssetCheckSeverity.WARN,
    )
