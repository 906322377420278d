"""Figures of `batch_metrics`: what batches are like over the steps, and which clusters they draw from.

Belongs here: one arm beside a control, measure by measure and cluster by cluster. Does not belong here: measuring, and
figures of the order itself (batches).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.report.batches import NO_MANIFEST, grouped, mark_epochs, numbered
from saerl_assets.report.marks import heat_colours, whole_ticks
from saerl_assets.report.style import (
    AMBER,
    BLUE,
    FAINT,
    INK,
    TEXT,
    card,
    label,
    largest,
    message,
    png,
    tick_names,
    write,
)
from saerl_assets.report.words import count, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

MEASURES = {
    "cluster_entropy": "cluster entropy (nats)",
    "n_clusters": "clusters",
    "feature_overlap": "feature overlap (Jaccard)",
    "difficulty_p50": "difficulty, median",
    "spread": "difficulty, spread",
    "mean_quality": "quality, mean",
}
"""Panels of the chart, row by row, with the names of their y axes."""

MAX_ROWS = 60
"""Clusters in the heat map, largest first."""
MAX_NAMES = 14
"""Names along its y axis."""


def figure_batch_metrics(metrics: pl.DataFrame, planner: str, *, control: str = "shuffle") -> bytes:
    """Every measure of a batch over the batches: the exported order beside a control, other arms faint.

    Args:
        metrics: Table `batch_metrics` of one manifest.
        planner: The arm that is exported.
        control: The arm to show beside it; left out where the manifest does not have it.

    Returns:
        PNG bytes.
    """
    if metrics.is_empty():
        return message("No batches to measure", NO_MANIFEST)
    colours = {planner: BLUE, control: AMBER}
    arms = sorted(metrics["arm"].unique(), key=lambda arm: (arm == planner, arm == control, arm))
    faint = len(set(arms) - set(colours))
    words = "means of neighbouring batches; band, spread: middle eight tenths"
    drawn = card(
        _mixing(metrics, planner, control),
        key=[(arm.replace("_", " "), colour) for arm, colour in colours.items() if arm in arms]
        + ([(count(faint, "other arm"), FAINT)] if faint else []),
        note=words,
        widths=(1.0, 1.0, 1.0),
        height=4.9,
        n_rows=2,
    )
    rows = metrics.with_columns(spread=pl.col("difficulty_p90") - pl.col("difficulty_p10"))
    for axes, (measure, name) in zip(drawn.axes, MEASURES.items(), strict=True):
        for arm in arms:
            _draw_measure(axes, rows.filter(pl.col("arm") == arm), measure, colours.get(arm, FAINT))
        _fit(axes, rows, measure)
        mark_epochs(axes, rows.filter(pl.col("arm") == arms[-1]))
        label(axes, x="batch" if axes in drawn.axes[3:] else "", y=name)
    return png(drawn)


def figure_batch_clusters(manifest: pl.DataFrame, planner: str, *, control: str = "shuffle") -> bytes:
    """How many prompts each batch draws from each cluster: the exported order beside a control, on one scale.

    Args:
        manifest: Table `batch_manifest` of one manifest; the arms `planner` and `control` are enough.
        planner: The arm that is exported.
        control: The arm to show beside it; left out where the manifest does not have it.

    Returns:
        PNG bytes.
    """
    arms = [arm for arm in (planner, control) if (manifest["arm"] == arm).any()]
    if not arms:
        return message("No batches", NO_MANIFEST)
    rows = {arm: grouped(manifest.filter(pl.col("arm") == arm)) for arm in arms}
    clusters = _by_size(rows[arms[0]])
    shown = clusters[:MAX_ROWS]
    cut = f", the largest {len(shown)} of {len(clusters):,}" if len(clusters) > len(shown) else ", largest on top"
    drawn = card(
        _concentration(rows),
        note=f"prompts that a batch takes from each cluster{cut}",
        widths=[1.0] * len(arms),
        height=3.9,
        share_y=True,
    )
    images = {arm: _image(found, shown) for arm, found in rows.items()}
    most = max(float(image.max(initial=0.0)) for image in images.values()) or 1.0
    for axes, arm in zip(drawn.axes, arms, strict=True):
        axes.grid(visible=False)
        heat = axes.imshow(
            images[arm],
            aspect="auto",
            cmap=heat_colours(),
            vmin=0.0,
            vmax=most,
            extent=(-0.5, largest(rows[arm], "batch") + 0.5, len(shown) - 0.5, -0.5),
            interpolation="nearest",
        )
        mark_epochs(axes, manifest.filter(pl.col("arm") == arm))
        whole_ticks(axes.xaxis)
        label(axes, x=f"batch, in the order {arm}", y="cluster" if arm == arms[0] else "")
    every = -(-len(shown) // MAX_NAMES)
    tick_names(drawn.axes[0], range(0, len(shown), every), [str(cluster) for cluster in shown[::every]])
    bar = drawn.figure.colorbar(heat, ax=list(drawn.axes), fraction=0.05, pad=0.015)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=TEXT - 1, labelcolor=INK, length=0)
    label(bar.ax, y="prompts in a batch")
    return png(drawn)


def _mixing(metrics: pl.DataFrame, planner: str, control: str) -> str:
    means = dict(metrics.group_by("arm").agg(pl.col("n_clusters").mean()).iter_rows())
    if planner not in means:
        return f"Nothing was measured of {planner}"
    words = f"A batch of {planner} mixes {figure(means[planner])} clusters on average"
    return f"{words}, one of {control} {figure(means[control])}" if control in means else words


def _draw_measure(axes: Axes, rows: pl.DataFrame, measure: str, colour: str) -> None:
    """One arm's line through each epoch, each point the mean over a twelfth of the epoch's batches around it."""
    for points in numbered(rows).sort("batch").drop_nulls(measure).partition_by("epoch"):
        if measure == "difficulty_p50" and colour != FAINT:
            low, high = (_smooth(points, edge) for edge in ("difficulty_p10", "difficulty_p90"))
            axes.fill_between(points["batch"], low, high, color=colour, alpha=0.18, linewidth=0)
        width = 1.1 if colour == FAINT else 1.8
        marker = "o" if points.height == 1 else None
        axes.plot(points["batch"], _smooth(points, measure), color=colour, linewidth=width, marker=marker, markersize=4)


def _smooth(points: pl.DataFrame, measure: str) -> pl.Series:
    window = max(1, points.height // 12)
    return points[measure].cast(pl.Float64).rolling_mean(window, min_samples=1, center=True)


def _fit(axes: Axes, rows: pl.DataFrame, measure: str) -> None:
    """Limits that do not make a hair's breadth look like a cliff, and words where nothing is known."""
    axes.margins(x=0.01)
    whole_ticks(axes.xaxis)
    if rows[measure].null_count() == rows.height:
        axes.set_xlim(0.0, 1.0)
        axes.set_ylim(0.0, 1.0)
        tick_names(axes, [], [])
        tick_names(axes, [], [], axis="x")
        write(axes, 0.5, 0.5, "not known", ha="center")
    elif measure in {"cluster_entropy", "n_clusters", "spread"}:
        axes.set_ylim(bottom=0.0)
        if axes.get_ylim()[1] < 0.1:
            axes.set_ylim(0.0, 1.0)
    if measure == "n_clusters":
        whole_ticks(axes.yaxis)


def _by_size(rows: pl.DataFrame) -> list[int]:
    """Clusters of one arm, that with most prompts first."""
    sizes = rows.group_by("cluster_id").len().sort(["len", "cluster_id"], descending=[True, False])
    return sizes["cluster_id"].to_list()


def _image(rows: pl.DataFrame, clusters: list[int]) -> NDArray[np.float64]:
    """Prompts per batch, float64 [clusters, groups of neighbouring batches]."""
    groups = rows["group"].unique().sort().to_numpy()
    n_batches = rows.group_by("group").agg(pl.col("batch").n_unique()).sort("group")["batch"].to_numpy()
    place = pl.DataFrame(
        {"cluster_id": clusters, "place": range(len(clusters))}, schema_overrides={"cluster_id": pl.UInt32}
    )
    kept = rows.join(place, on="cluster_id")
    image = np.zeros((len(clusters), len(groups)))
    np.add.at(image, (kept["place"].to_numpy(), np.searchsorted(groups, kept["group"].to_numpy())), 1.0)
    return np.asarray(image / n_batches, dtype=np.float64)


def _concentration(rows: dict[str, pl.DataFrame]) -> str:
    """What share of a batch its largest cluster has, on average, arm by arm."""
    said = []
    for arm, found in rows.items():
        sizes = (
            found.group_by("batch", "cluster_id").len().group_by("batch").agg(pl.col("len").max() / pl.col("len").sum())
        )
        said.append(f"{100 * float(np.mean(sizes['len'].to_numpy())):.0f}% in {arm}")
    return f"Largest cluster of a batch: {', '.join(said).replace('% in', '% of its prompts in', 1)}"
