"""Assets `clusters` and `cluster_assignments`: diversity.

Belongs here: running k-means on a version's features and keeping its centroids. Does not belong here: k-means.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
import polars as pl
from safetensors.numpy import save_file

from saerl_assets.assets.rooms import outs
from saerl_assets.domain.cluster_descriptions import describe_clusters
from saerl_assets.domain.clusters import assignment_frame, fit_clusters
from saerl_assets.domain.features import FeatureSet
from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.report.clusters import figure_cluster_assignments, figure_clusters
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.metadata import picture


@dg.multi_asset(
    name="clustering",
    outs=outs("signals", {"clusters": ("scikitlearn",), "cluster_assignments": ("scikitlearn",)}),
    partitions_def=DATASET_VERSIONS,
)
def clustering(
    context: dg.AssetExecutionContext, home: HomeResource, prompt_features: FeatureSet, prompts: pl.DataFrame
) -> Iterator[dg.MaterializeResult[pl.DataFrame]]:
    """Spherical k-means in SAE space: who belongs together, and what sets each cluster apart."""
    spec = home.version(context.partition_key).spec
    matrix = prompt_features.csr(spec.clusters.pooling)
    found = fit_clusters(matrix, spec.clusters, spec.seed)
    with TemporaryDirectory() as folder:
        save_file({"centroids": found.centroids, "weights": found.weights}, Path(folder) / "centroids.safetensors")
        digest, path = home.artifacts().put("centroids", Path(folder))
    described = describe_clusters(found, matrix, prompts).with_columns(
        centroids_digest=pl.lit(digest), centroids_path=pl.lit(path)
    )
    assigned = assignment_frame(found, prompt_features.prompt_ids)
    yield dg.MaterializeResult(
        asset_key="clusters",
        value=described,
        metadata={"figure": picture(figure_clusters(described), "cluster sizes with their words")},
    )
    yield dg.MaterializeResult(
        asset_key="cluster_assignments",
        value=assigned,
        metadata={
            "mean_similarity": float(found.similarity.mean()),
            "figure": picture(figure_cluster_assignments(assigned), "similarity to the centroid"),
        },
    )
