"""Assets `sae_weights`, `sae_health`, `control_saes`: a version's sparse autoencoders, their fit, and their controls.

Belongs here: obtaining one SAE per layer and measuring it on the version's own prompts. Does not belong here: training
and loading.
"""

import json

import dagster as dg
import polars as pl

from saerl_assets.assets.rooms import GPU_POOL, table_asset
from saerl_assets.report.sae import figure_control_saes, figure_layer_profile, figure_sae_health, figure_sae_weights
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.control_saes import make_controls
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.metadata import picture
from saerl_assets.resources.progress import progress_lines
from saerl_assets.resources.reading import Reading
from saerl_assets.resources.sae_health import measure_health
from saerl_assets.resources.saes import obtain_saes


@table_asset("features", "torch", pool=GPU_POOL)
def sae_weights(
    context: dg.AssetExecutionContext, home: HomeResource, compute: ComputeResource, prompts: pl.DataFrame
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row per layer: the SAE that encodes it, trained on the version's own activations, loaded, or taken over.

    A version with a parent takes over the parent's SAE, so that their features mean the same. An SAE that was trained
    from the same recipe on the same texts before is found again, not trained again.
    """
    reading = Reading(home, compute, context.partition_key, context.log.info)
    weights = obtain_saes(reading, prompts, lambda what: progress_lines(context.log.info, what))
    return dg.MaterializeResult(
        value=weights,
        metadata={
            "training": {
                str(layer): {name: value for name, value in json.loads(facts).items() if name != "history"}
                for layer, facts in weights.select("layer", "training").iter_rows()
            },
            **compute.as_metadata(),
            "figure": picture(figure_sae_weights(weights), "training of the SAE"),
        },
    )


@table_asset("features", "torch", pool=GPU_POOL)
def sae_health(
    context: dg.AssetExecutionContext,
    home: HomeResource,
    compute: ComputeResource,
    prompts: pl.DataFrame,
    sae_weights: pl.DataFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row per layer: explained variance, L0, dead latents, next-token loss recovered, and a verdict.

    It is measured on a sample of prompts that the SAE was not trained on, before the others are read: where it does not
    fit, nothing is built on it.
    """
    spec = home.version(context.partition_key).spec.sae
    reading = Reading(home, compute, context.partition_key, context.log.info)
    health = measure_health(reading, prompts, sae_weights, progress_lines(context.log.info, "health"))
    limits = {
        "min_explained_variance": spec.min_explained_variance,
        "max_dead_fraction": spec.max_dead_fraction,
    }
    figures = ("explained_variance", "l0", "dead_fraction", "loss_recovered")
    return dg.MaterializeResult(
        value=health,
        metadata={
            "verdict": " ".join(health["explanation"]),
            **{
                f"{name}_layer{row['layer']}": round(row[name], 4)
                for row in health.to_dicts()
                for name in figures
                if row[name] is not None
            },
            "figure": picture(figure_sae_health(health, **limits), "the SAE against its limits"),
            "layers": picture(figure_layer_profile(health), "the SAE at every layer of the model"),
        },
    )


@table_asset("features", "torch", pool=GPU_POOL)
def control_saes(
    context: dg.AssetExecutionContext,
    home: HomeResource,
    compute: ComputeResource,
    prompts: pl.DataFrame,
    sae_weights: pl.DataFrame,
    sae_health: pl.DataFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row per layer: an SAE of random weights, as wide and as active, to show what training one adds."""
    reading = Reading(home, compute, context.partition_key, context.log.info)
    progress = progress_lines(context.log.info, "control")
    controls = make_controls(reading, prompts, sae_weights, sae_health, progress)
    return dg.MaterializeResult(
        value=controls, metadata={"figure": picture(figure_control_saes(controls), "SAEs of random weights")}
    )
