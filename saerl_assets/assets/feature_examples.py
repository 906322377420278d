"""Asset `feature_examples`: the prompts that features fire on most, with the token at which they do.

Belongs here: gathering the prompts' tokens. Does not belong here: which features are shown, and cutting the texts.
"""

import dagster as dg
import polars as pl

from saerl_assets.assets.rooms import table_asset
from saerl_assets.domain.feature_examples import cut_examples, features_to_read
from saerl_assets.report.feature_examples import figure_feature_examples
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.metadata import picture

# The prompts are chosen before their features are unnested: of a million prompts a few hundred are read.
STRONGEST_TOKENS = """
    WITH wanted AS (
      SELECT unnest(CAST(? AS UINTEGER[])) AS feature_id, unnest(CAST(? AS VARCHAR[])) AS prompt_id
    ), read AS (
      SELECT
        p.prompt_id,
        p.token_ids,
        unnest(f.feature_ids) + w.feature_offset AS feature_id,
        unnest(f."max") AS activation,
        unnest(f.argmax_token) AS token_index
      FROM prompts p
      JOIN sae_weights w ON w.dataset_version = p.dataset_version
      JOIN prompt_features f ON f.encoder_id = w.encoder_id AND f.text_id = p.text_id
      WHERE p.dataset_version = ? AND p.prompt_id IN (SELECT prompt_id FROM wanted)
    )
    SELECT feature_id, prompt_id, activation, token_index, token_ids
    FROM read JOIN wanted USING (feature_id, prompt_id)
"""


@table_asset("features", "polars", deps=["prompts", "sae_weights", "prompt_features"])
def feature_examples(
    context: dg.AssetExecutionContext,
    home: HomeResource,
    compute: ComputeResource,
    feature_density: pl.DataFrame,
    clusters: pl.DataFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row per feature worth reading and prompt that it fires on most: the token at which it is strongest.

    The features that set clusters apart, and those that are active in most prompts.
    """
    version = home.version(context.partition_key)
    wanted = features_to_read(feature_density, clusters)
    read = home.warehouse(context.log.warning).query(
        STRONGEST_TOKENS, [wanted["feature_id"].to_list(), wanted["prompt_id"].to_list(), version.key]
    )
    shown = cut_examples(wanted, read.cast({"feature_id": pl.UInt32}), compute.tokeniser(version).text_of)
    return dg.MaterializeResult(
        value=shown,
        metadata={
            "n_features": shown["feature_id"].n_unique(),
            "figure": picture(figure_feature_examples(shown), "features with the tokens that fire them"),
        },
    )
