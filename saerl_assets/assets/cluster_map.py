"""Asset `cluster_map`: the prompts as points of a plane.

Belongs here: placing a sample of a version's prompts. Does not belong here: the projection.
"""

import dagster as dg
import polars as pl

from saerl_assets.assets.rooms import table_asset
from saerl_assets.domain.cluster_map import map_prompts
from saerl_assets.domain.features import FeatureSet
from saerl_assets.report.cluster_map import figure_cluster_map
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.metadata import picture


@table_asset("signals", "scikitlearn")
def cluster_map(
    context: dg.AssetExecutionContext,
    home: HomeResource,
    prompt_features: FeatureSet,
    cluster_assignments: pl.DataFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row per prompt on the map of a version: its place in a plane in which like prompts lie together.

    `trustworthiness` says how far neighbours on the map are neighbours in the features: 1 is wholly, 0.5 is chance.
    """
    spec = home.version(context.partition_key).spec
    placed, trust = map_prompts(prompt_features, cluster_assignments, spec.clusters, spec.seed)
    return dg.MaterializeResult(
        value=placed,
        metadata={
            **({} if trust is None else {"trustworthiness": trust}),
            "figure": picture(figure_cluster_map(placed, trust), "prompts in a plane, by cluster"),
        },
    )
