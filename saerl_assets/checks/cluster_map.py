"""Checks of `cluster_map`.

Belongs here: that the map shows the prompts in their clusters. Does not belong here: whether the clusters are any good
(clusters).
"""

import dagster as dg
import polars as pl

from saerl_assets.checks.verdict import verdict
from saerl_assets.domain.cluster_map import MAX_POINTS

MIN_SHOWN_FRACTION = 0.5
"""Of the prompts that there is room for. Prompts without active features have no place; of more, the map misleads."""


@dg.asset_check(asset="cluster_map", additional_ins={"cluster_assignments": dg.AssetIn("cluster_assignments")})
def map_shows_the_clusters(cluster_map: pl.DataFrame, cluster_assignments: pl.DataFrame) -> dg.AssetCheckResult:
    """Every point is a prompt in the cluster that it was given, on the map and once; most prompts have one."""
    assigned = cluster_assignments.select("prompt_id", assigned="cluster_id")
    points = cluster_map.join(assigned, on="prompt_id", how="left")
    outside = points.filter(~(pl.col("x").is_between(0, 1) & pl.col("y").is_between(0, 1)))  # NaN is outside, too
    counts = {
        "points are of no prompt of this version.": points["assigned"].null_count(),
        "points have another cluster than their prompt.": points.filter(
            pl.col("cluster_id") != pl.col("assigned")
        ).height,
        "points are off the map.": outside.height,
        "points are of a prompt that has one already.": cluster_map.height - cluster_map["prompt_id"].n_unique(),
    }
    problems = [f"{count} {what}" for what, count in counts.items() if count]
    room = min(cluster_assignments.height, MAX_POINTS)
    if cluster_map.height < MIN_SHOWN_FRACTION * room:
        problems.append(
            f"The map shows {cluster_map.height} of {room} prompts; the others have no active feature. "
            "Look at sae_health and feature_density."
        )
    return verdict(
        problems,
        f"The map shows {cluster_map.height} of {cluster_assignments.height} prompts in their clusters.",
        {"n_points": cluster_map.height},
        severity=dg.AssetCheckSeverity.WARN,
    )
