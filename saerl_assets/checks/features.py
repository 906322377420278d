"""Checks of `prompt_features` and `feature_density`.

Belongs here: that every prompt was read by every encoder, that latents fire. Does not belong here: whether the SAE
fits (sae).
"""

import dagster as dg
import polars as pl

from saerl_assets.checks.verdict import verdict
from saerl_assets.resources.home import HomeResource


@dg.asset_check(asset="prompt_features", blocking=True)
def every_prompt_was_read(context: dg.AssetCheckExecutionContext, home: HomeResource) -> dg.AssetCheckResult:
    """Every prompt has a row of features for every layer of the version."""
    coverage = home.warehouse().query(
        """
        SELECT w.layer, count(*) AS n_prompts, count(f.text_id) AS n_read,
               count(*) FILTER (len(f.feature_ids) = 0) AS n_silent
        FROM prompts p
        JOIN sae_weights w USING (dataset_version)
        LEFT JOIN prompt_features f ON f.encoder_id = w.encoder_id AND f.text_id = p.text_id
        WHERE p.dataset_version = ?
        GROUP BY w.layer ORDER BY w.layer
        """,
        [context.run.tags["dagster/partition"]],
    )
    return all_read(coverage)


def all_read(coverage: pl.DataFrame) -> dg.AssetCheckResult:
    """Prompts against those read, by layer; columns layer, n_prompts, n_read, n_silent."""
    rows = coverage.to_dicts()
    problems = [
        f"Layer {row['layer']}: {row['n_prompts'] - row['n_read']} prompts have no features."
        for row in rows
        if row["n_read"] < row["n_prompts"]
    ]
    problems += [
        f"Layer {row['layer']}: no feature fires on any prompt."
        for row in rows
        if row["n_prompts"] and row["n_silent"] == row["n_prompts"]
    ]
    if not rows:
        problems = ["The version has no prompts or no encoder."]
    return verdict(
        problems,
        "Every prompt was read.",
        {f"silent_prompts_layer{row['layer']}": row["n_silent"] for row in rows},
    )


@dg.asset_check(asset="feature_density")
def few_dead_latents(
    context: dg.AssetCheckExecutionContext, home: HomeResource, feature_density: pl.DataFrame
) -> dg.AssetCheckResult:
    """Not too many latents stay silent on the version's prompts."""
    limit = home.version(context.run.tags["dagster/partition"]).spec.sae.max_dead_fraction
    return dead_latents(feature_density, limit)


def dead_latents(density: pl.DataFrame, limit: float) -> dg.AssetCheckResult:
    """Layers whose share of latents that fire on no prompt is above the limit; columns layer, n_prompts."""
    dead = density.group_by("layer").agg((pl.col("n_prompts") == 0).mean().alias("dead")).sort("layer").rows()
    return verdict(
        [
            f"Layer {layer}: {share:.0%} of the latents never fire on these prompts, the spec allows {limit:.0%}. "
            "Train a narrower SAE or for more tokens."
            for layer, share in dead
            if share > limit
        ],
        f"At most {limit:.0%} of the latents are dead.",
        {f"dead_fraction_layer{layer}": share for layer, share in dead},
        severity=dg.AssetCheckSeverity.WARN,
    )
