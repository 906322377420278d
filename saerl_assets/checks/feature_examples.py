"""Checks of `feature_examples`.

Belongs here: that an example is a token of its prompt, strongest first. Does not belong here: how often features fire
(features).
"""

import dagster as dg
import polars as pl

from saerl_assets.checks.verdict import verdict
from saerl_assets.resources.home import HomeResource


@dg.asset_check(asset="feature_examples", additional_ins={"feature_density": dg.AssetIn("feature_density")})
def examples_are_tokens_of_their_prompts(
    context: dg.AssetCheckExecutionContext, home: HomeResource, feature_density: pl.DataFrame
) -> dg.AssetCheckResult:
    """Every example is a token of a prompt at which its feature fires, the strongest first; none is missing."""
    examples = home.warehouse().query(
        """
        SELECT e.feature_id, e.place, e.activation, e.token_index, len(p.token_ids) AS n_tokens
        FROM feature_examples e
        LEFT JOIN prompts p USING (dataset_version, prompt_id)
        WHERE e.dataset_version = ?
        ORDER BY e.feature_id, e.place
        """,
        [context.run.tags["dagster/partition"]],
    )
    return tokens_of_prompts(examples, feature_density)


def tokens_of_prompts(examples: pl.DataFrame, density: pl.DataFrame) -> dg.AssetCheckResult:
    """Examples against the prompts that they are cut from and the features that fire.

    Args:
        examples: `feature_id`, `place`, `activation`, `token_index` and `n_tokens` of the prompt (null of
            an unknown one); by feature and place.
        density: `feature_id` and `n_prompts`.
    """
    stronger = pl.col("activation") > pl.col("activation").shift().over("feature_id")
    counts = {
        "examples are of no prompt of this version.": examples["n_tokens"].null_count(),
        "examples are of a token that their prompt does not have.": examples.filter(
            pl.col("token_index") >= pl.col("n_tokens")
        ).height,
        "examples are of a token at which the feature does not fire.": examples.filter(
            ~(pl.col("activation") > 0) | pl.col("activation").is_nan()
        ).height,
        "examples are stronger than the one before them.": examples.filter(stronger).height,
        "features lack some of their examples.": _with_gaps(examples),
    }
    problems = [f"{count} {what}" for what, count in counts.items() if count]
    n_firing = density.filter(pl.col("n_prompts") > 0).height
    if n_firing and examples.is_empty():
        problems.append(f"{n_firing} features fire, and none has an example.")
    n_shown = examples["feature_id"].n_unique()
    return verdict(
        problems,
        f"{n_shown} features have examples, each a token of its prompt.",
        {"n_features": n_shown, "n_examples": examples.height},
        severity=dg.AssetCheckSeverity.WARN,
    )


def _with_gaps(examples: pl.DataFrame) -> int:
    """Features whose places are not 0, 1, 2 and so on."""
    expected = pl.int_range(pl.len()).over("feature_id")
    return examples.filter(pl.col("place") != expected)["feature_id"].n_unique()
