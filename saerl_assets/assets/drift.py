"""Assets `cluster_drift` and `version_drift`: how far a version has moved from its parent.

Belongs here: putting the two versions side by side. Does not belong here: comparing them.
"""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from saerl_assets.assets.rooms import outs
from saerl_assets.domain.drift import State, density_shift, no_drift
from saerl_assets.domain.drift import cluster_drift as compare_clusters
from saerl_assets.domain.drift import version_drift as compare_versions
from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.report.drift import figure_cluster_drift, figure_version_drift
from saerl_assets.resources.centroids import centroids_digest, load_centroids, same_encoders
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.metadata import picture
from saerl_assets.storage.catalog import Version


@dg.multi_asset(
    name="drift",
    outs=outs("signals", {"cluster_drift": ("polars",), "version_drift": ("polars",)}),
    partitions_def=DATASET_VERSIONS,
)
def drift(
    context: dg.AssetExecutionContext,
    home: HomeResource,
    clusters: pl.DataFrame,
    cluster_assignments: pl.DataFrame,
    feature_density: pl.DataFrame,
) -> Iterator[dg.MaterializeResult[pl.DataFrame]]:
    """Clusters, their shares of the prompts and the features' densities against those of the parent.

    The check `near_the_parent` fails where a measure is beyond its limit in the spec's [drift], and stops nothing.
    """
    by_cluster, measured = _compare(
        home, home.version(context.partition_key), clusters, cluster_assignments, feature_density
    )
    yield dg.MaterializeResult(
        asset_key="cluster_drift",
        value=by_cluster,
        metadata={"figure": picture(figure_cluster_drift(by_cluster), "shares of the prompts, before and after")},
    )
    yield dg.MaterializeResult(
        asset_key="version_drift",
        value=measured,
        metadata={
            "explanation": " ".join(measured["explanation"].unique(maintain_order=True)),
            "figure": picture(figure_version_drift(measured), "measures of drift against their limits"),
        },
    )


def _compare(
    home: HomeResource,
    version: Version,
    clusters: pl.DataFrame,
    assignments: pl.DataFrame,
    density: pl.DataFrame,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Both tables, or in their place why there is nothing to compare."""
    parent, spec = version.spec.parent, version.spec.drift
    if parent is None:
        return no_drift("The version has no parent.", spec)
    warehouse = home.warehouse()
    assignments_before = warehouse.rows("cluster_assignments", dataset_version=parent)
    density_before = warehouse.rows("feature_density", dataset_version=parent)
    shift = (
        density_shift(density_before, assignments_before.height, density, assignments.height)
        if same_encoders(home, version)
        else None
    )
    if clusters.is_empty():
        return no_drift("The version has no clusters.", spec, density=shift)
    continued = clusters["parent_digest"][0]
    if continued is None:
        return no_drift(f"Its clusters do not continue the parent's. {clusters['start'][0]}", spec, density=shift)
    if continued != centroids_digest(home, parent):
        why = f"{parent} was clustered again since; cluster this version again too."
        return no_drift(why, spec, density=shift)
    before = State(assignments_before, load_centroids(home, continued), density_before)
    after = State(assignments, load_centroids(home, clusters["centroids_digest"][0]), density)
    by_cluster = compare_clusters(before, after)
    return by_cluster, compare_versions(before, after, by_cluster, spec)
