"""Checks of `sae_health`.

Belongs here: refusing an SAE that does not fit. Does not belong here: measuring it.
"""

import dagster as dg
import polars as pl

from saerl_assets.checks.verdict import verdict
from saerl_assets.resources.home import HomeResource


@dg.asset_check(asset="sae_health", blocking=True)
def sae_fits(sae_health: pl.DataFrame) -> dg.AssetCheckResult:
    """The SAE explains this model's activations at this layer on these prompts."""
    unfit = sae_health.filter(pl.col("verdict") == "unfit")
    return verdict(
        [f"Layer {layer}: {words}" for layer, words in unfit.select("layer", "explanation").iter_rows()],
        " ".join(sae_health["explanation"]),
        {f"explained_variance_layer{row['layer']}": row["explained_variance"] for row in sae_health.to_dicts()},
    )


@dg.asset_check(asset="sae_health")
def few_dead_latents(
    context: dg.AssetCheckExecutionContext, home: HomeResource, sae_health: pl.DataFrame
) -> dg.AssetCheckResult:
    """Not too many latents stay silent on the version's prompts."""
    limit = home.version(context.run.tags["dagster/partition"]).spec.sae.max_dead_fraction
    return dead_latents(sae_health, limit)


def dead_latents(health: pl.DataFrame, limit: float) -> dg.AssetCheckResult:
    """Layers whose share of dead latents is above the limit."""
    return verdict(
        [
            f"Layer {row['layer']}: {row['dead_fraction']:.0%} of the latents never fire on these prompts, the spec "
            f"allows {limit:.0%}. Train a narrower SAE or for more tokens."
            for row in health.to_dicts()
            if row["dead_fraction"] > limit
        ],
        f"At most {limit:.0%} of the latents are dead.",
        {f"dead_fraction_layer{row['layer']}": row["dead_fraction"] for row in health.to_dicts()},
        severity=dg.AssetCheckSeverity.WARN,
    )
