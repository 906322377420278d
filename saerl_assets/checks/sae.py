"""Checks of `sae_health`.

Belongs here: refusing an SAE that does not fit, before the version is read with it. Does not belong here: measuring it.
"""

import dagster as dg
import polars as pl

from saerl_assets.checks.verdict import verdict


@dg.asset_check(asset="sae_health", blocking=True)
def sae_fits(sae_health: pl.DataFrame) -> dg.AssetCheckResult:
    """The SAE explains this model's activations at this layer on these prompts."""
    unfit = sae_health.filter(pl.col("verdict") == "unfit")
    return verdict(
        [f"Layer {layer}: {words}" for layer, words in unfit.select("layer", "explanation").iter_rows()],
        " ".join(sae_health["explanation"]),
        {f"explained_variance_layer{row['layer']}": row["explained_variance"] for row in sae_health.to_dicts()},
    )
