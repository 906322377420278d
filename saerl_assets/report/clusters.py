"""Figures of the clusters: how large they are, what they are about, how tight they are.

Belongs here: `clusters`, `cluster_assignments` and `cluster_quality`. Does not belong here: how batches draw from them
(batches.py), how they differ from the parent's (drift.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.report.marks import histogram, median_line
from saerl_assets.report.style import (
    BLUE,
    FAINT,
    INK,
    SKY,
    VERMILION,
    card,
    finite,
    label,
    largest,
    message,
    png,
    tick_names,
    write,
)
from saerl_assets.report.words import count, cut, figure, share

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

MAX_CLUSTERS = 16
BAR_ROOM = 2.8  # the axis is so many times as long as the longest bar: the words stand in the rest
LINE_LETTERS = 98  # small letters that fit beside each other on the axis
MEASURES = {
    "stability": "the same from another seed (ARI)",
    "silhouette": "apart (silhouette)",
    "balance": "even sizes (entropy)",
    "largest_fraction": "prompts in the largest",
    "tiny_fraction": "clusters that are tiny",
}
NO_CLUSTERS = "Materialise clusters: it groups the prompts by their features."


def figure_clusters(clusters: pl.DataFrame) -> bytes:
    """The largest clusters with the words that set them apart.

    Args:
        clusters: Table `clusters`.

    Returns:
        PNG bytes.
    """
    if clusters.is_empty():
        return message("No clusters", NO_CLUSTERS)
    ordered = clusters.sort(["n_prompts", "cluster_id"], descending=[True, False])
    shown, rest = ordered[:MAX_CLUSTERS], ordered[MAX_CLUSTERS:]
    known = bool(ordered["top_topic"].is_not_null().any())
    drawn = card(
        f"{count(ordered.height, 'cluster')} of {count(int(ordered['n_prompts'].sum()), 'prompt')}; "
        f"the largest holds {share(largest(ordered, 'prompt_fraction'))}",
        key=[("prompts of the main topic", BLUE), ("of other topics", SKY)] if known else [],
        note="beside each: the words that set it apart",
        height=0.95 + 0.27 * (shown.height + bool(rest.height)),
    )
    axes = drawn.axes[0]
    sizes = finite(shown, "n_prompts")
    pure = sizes * shown["top_topic_fraction"].cast(pl.Float64).fill_null(0.0 if known else 1.0).to_numpy()
    names = [str(cluster) for cluster in shown["cluster_id"]]
    if rest.height:
        sizes, pure = np.append(sizes, float(rest["n_prompts"].sum())), np.append(pure, 0.0)
        names.append(f"{rest.height} more")
    places = np.arange(len(sizes))
    colours = [SKY] * shown.height + [FAINT] * bool(rest.height)
    axes.barh(places, sizes, height=0.7, color=colours)
    axes.barh(places, pure, height=0.7, color=BLUE)
    axes.set_ylim(len(sizes) - 0.4, -0.6)
    axes.set_xlim(0.0, float(sizes.max()) * BAR_ROOM)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.xaxis.set_ticks([])  # the numbers stand at the bars
    tick_names(axes, places.tolist(), names)
    _write_words(axes, shown, sizes.tolist())
    label(axes, y="cluster")
    return png(drawn)


def figure_cluster_assignments(assignments: pl.DataFrame) -> bytes:
    """How near the prompts are to the centroids of their clusters.

    Args:
        assignments: Table `cluster_assignments`.

    Returns:
        PNG bytes.
    """
    similarity = finite(assignments, "similarity")
    if not similarity.size:
        return message("No prompt is assigned", NO_CLUSTERS)
    median = float(np.median(similarity))
    drawn = card(
        f"{count(similarity.size, 'prompt')} in {count(assignments['cluster_id'].n_unique(), 'cluster')}, "
        f"median cosine {figure(median)} to the centroid",
        note="1 is a prompt exactly like the middle of its cluster, 0 one that shares no feature with it",
    )
    histogram(drawn.axes[0], {"": similarity}, [BLUE])
    median_line(drawn.axes[0], median, "median")
    label(drawn.axes[0], x="cosine similarity to the cluster's centroid", y="prompts")
    return png(drawn)


def figure_cluster_quality(quality: pl.DataFrame) -> bytes:
    """Every measure of the clustering against its limit.

    Args:
        quality: Table `cluster_quality`.

    Returns:
        PNG bytes.
    """
    measured = quality.filter(pl.col("value").is_finite()).sort("measure")
    if measured.is_empty():
        return message("The clusters were not measured", NO_CLUSTERS)
    beyond = measured.filter(verdict="watch")
    title = (
        f"Worth a look: {', '.join(MEASURES.get(name, name) for name in beyond['measure'])}"
        if beyond.height
        else "Even, apart, and the same from another seed: every measure is within its limit"
    )
    return draw_limits(title, measured, MEASURES, good="good")


def draw_limits(title: str, measured: pl.DataFrame, names: Mapping[str, str], *, good: str) -> bytes:
    """Measures as bars, each with its limit as a mark.

    Args:
        title: A sentence.
        measured: `measure`, `value`, finite, `threshold` and `verdict`, one row for each bar from top to bottom.
        names: What the measures are called.
        good: The verdict of those on the good side of their limit.

    Returns:
        PNG bytes.
    """
    drawn = card(
        title,
        key=[("within its limit", BLUE), ("beyond it", VERMILION)],
        note="the mark is the limit",
        height=1.1 + 0.27 * measured.height,
    )
    axes = drawn.axes[0]
    places = np.arange(measured.height)
    values = measured["value"].cast(pl.Float64).to_numpy()
    limits = np.nan_to_num(measured["threshold"].cast(pl.Float64).to_numpy(), posinf=0.0)
    axes.barh(
        places, values, height=0.6, color=[BLUE if verdict == good else VERMILION for verdict in measured["verdict"]]
    )
    for place, limit in enumerate(limits):
        axes.plot([limit, limit], [place - 0.42, place + 0.42], color=INK, linewidth=1.4)
    axes.set_ylim(measured.height - 0.4, -0.6)
    axes.set_xlim(min(0.0, float(values.min())), max(float(values.max()), float(limits.max()), 0.1) * 1.25)
    tick_names(axes, places.tolist(), [names.get(name, name) for name in measured["measure"]])
    for place, (value, limit) in enumerate(zip(values, limits, strict=True)):
        write(axes, max(value, limit, 0.0), float(place), figure(value), points=6.0)
    return png(drawn)


def _write_words(axes: Axes, shown: pl.DataFrame, sizes: list[float]) -> None:
    """Count, topic and words at the end of each bar, as far as the card is wide."""
    for place, row in enumerate(shown.iter_rows(named=True)):
        size = sizes[place]
        words = ", ".join(row["top_words"] or [])
        topic = f"{row['top_topic']}: " if row["top_topic"] else ""
        room = int(LINE_LETTERS * (1.0 - size / max(sizes) / BAR_ROOM)) - len(count(size))
        write(axes, size, place, f"{count(size)}   {cut(topic + words, room)}", points=5.0)
    if len(sizes) > shown.height:
        write(axes, sizes[-1], len(sizes) - 1, f"{count(sizes[-1])}   in smaller clusters", points=5.0)
