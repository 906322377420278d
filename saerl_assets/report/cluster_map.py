"""Figure of the map of the clusters, and the map that the page lets one walk over.

Belongs here: `cluster_map`. Does not belong here: the projection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from saerl_assets.report.blocks import Point, Scatter
from saerl_assets.report.marks import SHADES, shade_of
from saerl_assets.report.style import CARD, FONT, INK, card, label, message, png
from saerl_assets.report.tables import prompts_shown
from saerl_assets.report.words import count, cut, figure, short

if TYPE_CHECKING:
    from saerl_assets.report.inputs import ReportInputs

MAX_NUMBERS = 40
"""Clusters whose numbers are written on the map, the largest first."""

POINT_LETTERS = 160
"""Letters of a prompt that are read by pointing at it."""

NEIGHBOURS = "neighbours are alike; how far apart groups lie means little"


def figure_cluster_map(places: pl.DataFrame, trust: float | None = None) -> bytes:
    """Prompts in the plane, coloured by cluster, with the clusters' numbers in their middles.

    Args:
        places: Table `cluster_map`.
        trust: Its trustworthiness, where it is known.

    Returns:
        PNG bytes.
    """
    if places.is_empty():
        return message("No map", "No prompt of the version has an active feature.")
    said = f", trustworthiness {figure(trust)}" if trust is not None else ""
    drawn = card(
        f"{count(places.height, 'prompt')} in {count(places['cluster_id'].n_unique(), 'cluster')}{said}",
        note=NEIGHBOURS,
        height=6.0,
    )
    axes = drawn.axes[0]
    shown = places.sort("prompt_id")
    colours = [SHADES[shade_of(cluster)] for cluster in shown["cluster_id"]]
    axes.scatter(shown["x"], shown["y"], s=14, c=colours, alpha=0.75, linewidths=0)
    for cluster, x, y in middles(places).head(MAX_NUMBERS).select("cluster_id", "x", "y").iter_rows():
        axes.annotate(
            str(cluster),
            (x, y),
            xytext=(5.0, 4.0),
            textcoords="offset points",
            color=INK,
            fontsize=8,
            fontweight="bold",
            fontfamily=FONT,
            bbox={"facecolor": CARD, "alpha": 0.7, "edgecolor": "none", "boxstyle": "round,pad=0.1"},
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.set_aspect("equal", adjustable="datalim")
    label(axes, x="t-SNE of the clustered features, no unit", y="")
    return png(drawn)


def cluster_map_block(inputs: ReportInputs) -> Scatter:
    """The map with every prompt to point at."""
    signals = (
        inputs.cluster_map.join(
            inputs.difficulty_scores.select("prompt_id", "difficulty_rank"), on="prompt_id", how="left"
        )
        .join(inputs.quality_scores.select("prompt_id", "quality"), on="prompt_id", how="left")
        .join(inputs.prompts.select("prompt_id", "text"), on="prompt_id")
        .sort("prompt_id")
    )
    in_table = set(prompts_shown(inputs)["prompt_id"])
    points = tuple(
        Point(
            row["x"],
            1.0 - row["y"],
            short(row["prompt_id"]),
            "" if row["prompt_id"] in in_table else cut(row["text"], POINT_LETTERS),
            group=row["cluster_id"],
            shade=shade_of(row["cluster_id"]),
            scales=(row["difficulty_rank"], row["quality"]),
        )
        for row in signals.iter_rows(named=True)
    )
    named = middles(inputs.cluster_map).head(MAX_NUMBERS)
    numbers = tuple((x, 1.0 - y, str(cluster)) for cluster, x, y in named.select("cluster_id", "x", "y").iter_rows())
    return Scatter(
        "cluster-map",
        "Map of the prompts",
        points,
        numbers=numbers,
        scale_names=("difficulty", "quality"),
        group_name="cluster",
        note=f"t-SNE of the clustered features: {NEIGHBOURS}. Point at a prompt to read it; a click shows its cluster "
        "in the table of prompts.",
        height=0.72,
    )


def middles(places: pl.DataFrame) -> pl.DataFrame:
    """`cluster_id`, `n`, `x` and `y` of the prompt that is nearest to each cluster's middle, largest cluster first."""
    middle = pl.col("x", "y").median().over("cluster_id").name.suffix("_middle")
    apart = (pl.col("x") - pl.col("x_middle")).pow(2) + (pl.col("y") - pl.col("y_middle")).pow(2)
    return (
        places.sort("prompt_id")
        .with_columns(middle)
        .with_columns(apart=apart)
        .sort("cluster_id", "apart", "prompt_id")
        .group_by("cluster_id", maintain_order=True)
        .agg(pl.len().alias("n"), pl.col("x", "y").first())
        .sort(["n", "cluster_id"], descending=[True, False])
    )
