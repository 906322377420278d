"""Checks of `cluster_assignments`, `clusters` and `cluster_quality`.

Belongs here: that every prompt is in one cluster, and that the clusters are worth drawing from. Does not belong here:
measuring that.
"""

import dagster as dg
import polars as pl

from saerl_assets.checks.verdict import verdict

LARGEST_FRACTION = 0.5


@dg.asset_check(
    asset="cluster_assignments",
    additional_ins={"prompts": dg.AssetIn("prompts"), "clusters": dg.AssetIn("clusters")},
    blocking=True,
)
def every_prompt_in_one_cluster(
    cluster_assignments: pl.DataFrame, prompts: pl.DataFrame, clusters: pl.DataFrame
) -> dg.AssetCheckResult:
    """Assignments, prompts and cluster sizes agree."""
    assigned, known = set(cluster_assignments["prompt_id"]), set(prompts["prompt_id"])
    problems = []
    if assigned != known or cluster_assignments.height != prompts.height:
        problems.append(f"{len(known - assigned)} prompts have no cluster, {len(assigned - known)} are unknown.")
    counted = dict(cluster_assignments["cluster_id"].value_counts().iter_rows())
    told = dict(clusters.select("cluster_id", "n_prompts").iter_rows())
    if counted != told:
        problems.append("The sizes in `clusters` are not those of the assignments.")
    return verdict(problems, "Every prompt is in one cluster.", {"n_clusters": clusters.height})


@dg.asset_check(asset="clusters")
def no_cluster_takes_all(clusters: pl.DataFrame) -> dg.AssetCheckResult:
    """No cluster holds more than half of the prompts."""
    largest = float(clusters["prompt_fraction"].max() or 0.0)  # type: ignore[arg-type]
    too_large = clusters.height > 1 and largest > LARGEST_FRACTION
    return verdict(
        [f"One cluster holds {largest:.0%} of the prompts. Try another clusters.k or clusters.weighting."]
        if too_large
        else [],
        f"The largest cluster holds {largest:.0%} of the prompts.",
        {"largest_fraction": largest},
        severity=dg.AssetCheckSeverity.WARN,
    )


@dg.asset_check(asset="cluster_quality")
def clusters_hold_together(cluster_quality: pl.DataFrame) -> dg.AssetCheckResult:
    """Another seed finds about the same clusters, which are even, apart and not tiny."""
    weak = cluster_quality.filter(verdict="watch")
    measured = cluster_quality.drop_nulls("value")
    return verdict(
        weak["explanation"].to_list(),
        "Every measure is within its limit."
        if measured.height
        else "There are too few clusters or prompts to measure.",
        dict(measured.select("measure", "value").iter_rows()),
        severity=dg.AssetCheckSeverity.WARN,
    )
