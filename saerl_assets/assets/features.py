"""Assets `prompt_features`, `prompt_states` and `feature_density`: what the reader and the SAEs make of each prompt.

Belongs here: which texts were not read yet, reading them shard by shard, handing finished shards over. Does not belong
here: the forward pass and the pooling.
"""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from saerl_assets.assets.rooms import GPU_POOL, outs, table_asset
from saerl_assets.domain.features import FeatureSet
from saerl_assets.domain.features import feature_density as measure_density
from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.report.features import figure_feature_density, figure_prompt_features, figure_prompt_states
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.extraction import extract
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.metadata import picture
from saerl_assets.resources.progress import progress_lines
from saerl_assets.resources.reading import Reading
from saerl_assets.storage.shards import ShardFiles


@dg.multi_asset(
    name="extraction",
    outs=outs("features", {"prompt_features": ("torch",), "prompt_states": ("torch",)}, value=ShardFiles),
    deps=["sae_health"],  # its check stops the run before prompts are read with an SAE that does not fit
    partitions_def=DATASET_VERSIONS,
    pool=GPU_POOL,
)
def extraction(
    context: dg.AssetExecutionContext,
    home: HomeResource,
    compute: ComputeResource,
    prompts: pl.DataFrame,
    sae_weights: pl.DataFrame,
    control_saes: pl.DataFrame,
) -> Iterator[dg.MaterializeResult[ShardFiles]]:
    """One pass of the reader over the texts that its encoders have not read yet; everything else is reused.

    Killed anywhere and run again, it computes only the missing shards.
    """
    reading = Reading(home, compute, context.partition_key, context.log.info)
    done = extract(reading, prompts, sae_weights, control_saes, progress_lines(context.log.info, "reading"))
    yield dg.MaterializeResult(
        asset_key="prompt_features",
        value=done.features,
        metadata={
            "figure": picture(figure_prompt_features(done.counts), "active features per prompt"),
            **done.figures,
        },
    )
    yield dg.MaterializeResult(
        asset_key="prompt_states",
        value=done.states,
        metadata={"figure": picture(figure_prompt_states(done.sample_states, prompts), "dense states")},
    )
    reading.forget()


@table_asset("features", "polars")
def feature_density(prompt_features: FeatureSet, sae_weights: pl.DataFrame) -> dg.MaterializeResult[pl.DataFrame]:
    """One row per feature, dead ones included: how often it fires, how strongly, and on which prompts most."""
    layers = sae_weights.sort("layer").select("layer", "feature_offset", "n_latents").rows()
    density = measure_density(prompt_features, layers)
    return dg.MaterializeResult(
        value=density,
        metadata={
            "dead_fraction": density.select((pl.col("n_prompts") == 0).mean()).item(),
            "figure": picture(figure_feature_density(density), "prompts per feature"),
        },
    )
