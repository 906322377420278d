"""Assets `clusters`, `cluster_assignments` and `cluster_quality`: diversity.

Belongs here: running k-means on a version's features, from its parent's centroids where it has them. Does not belong
here: k-means.
"""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from saerl_assets.assets.rooms import outs
from saerl_assets.domain.cluster_descriptions import describe_clusters
from saerl_assets.domain.cluster_quality import measure_clusters
from saerl_assets.domain.clusters import assignment_frame, fit_clusters
from saerl_assets.domain.features import FeatureSet
from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.report.clusters import figure_cluster_assignments, figure_cluster_quality, figure_clusters
from saerl_assets.resources.centroids import inherited, keep_centroids
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.metadata import picture


@dg.multi_asset(
    name="clustering",
    outs=outs(
        "signals",
        {"clusters": ("scikitlearn",), "cluster_assignments": ("scikitlearn",), "cluster_quality": ("scikitlearn",)},
    ),
    partitions_def=DATASET_VERSIONS,
)
def clustering(
    context: dg.AssetExecutionContext,
    home: HomeResource,
    compute: ComputeResource,
    prompt_features: FeatureSet,
    prompts: pl.DataFrame,
) -> Iterator[dg.MaterializeResult[pl.DataFrame]]:
    """Spherical k-means in SAE space: who belongs together, what sets each cluster apart, and how good that is.

    A version with a parent starts from the parent's centroids, so that cluster ids mean the same in both.
    """
    version = home.version(context.partition_key)
    spec = version.spec
    start = inherited(home, version)
    context.log.info(start.why)
    found = fit_clusters(prompt_features, spec.clusters, spec.seed, start.centroids)
    digest, path = keep_centroids(home, found.centroids)
    described = describe_clusters(found, prompt_features, prompts, compute.tokeniser(version).texts_of).with_columns(
        centroids_digest=pl.lit(digest),
        centroids_path=pl.lit(path),
        parent_digest=pl.lit(start.digest, pl.String),
        start=pl.lit(start.why),
    )
    assigned = assignment_frame(found, prompt_features)
    measured = measure_clusters(found, prompt_features, spec.clusters, spec.seed)
    yield dg.MaterializeResult(
        asset_key="clusters",
        value=described,
        metadata={
            "start": start.why,
            "figure": picture(figure_clusters(described), "cluster sizes with their words"),
        },
    )
    yield dg.MaterializeResult(
        asset_key="cluster_assignments",
        value=assigned,
        metadata={
            "mean_similarity": float(found.similarity.mean()) if assigned.height else 0.0,
            "figure": picture(figure_cluster_assignments(assigned), "similarity to the centroid"),
        },
    )
    yield dg.MaterializeResult(
        asset_key="cluster_quality",
        value=measured,
        metadata={
            **{row["measure"]: row["value"] for row in measured.to_dicts() if row["value"] is not None},
            "figure": picture(figure_cluster_quality(measured), "measures of the clustering against their limits"),
        },
    )
