"""Figures of the batches: how difficulty and clusters run over the steps, and what is left out of the order.

Belongs here: `batch_manifest`, `manifests`, `batch_metrics`, `deferred_prompts`. Does not belong here: the
files that trainers read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.report.marks import bars, end_labels, facts, heat_colours, whole_ticks
from saerl_assets.report.style import (
    AMBER,
    BLUE,
    FAINT,
    INK,
    VERMILION,
    card,
    label,
    largest,
    message,
    png,
)
from saerl_assets.report.words import count, figure, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_POINTS = 160
"""Points along the steps; longer manifests are drawn in groups of neighbouring batches."""
MAX_ROWS = 60
"""Clusters in the heat map, largest first."""
NO_MANIFEST = "Materialise batch_manifest: it needs clusters, difficulty_scores and quality_scores."


def figure_batch_manifest(manifest: pl.DataFrame, planner: str, *, control: str = "shuffle") -> bytes:
    """Difficulty over the batches: the planned order beside a control.

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
    curves = {arm: _difficulty_curve(manifest.filter(pl.col("arm") == arm)) for arm in arms}
    rows = manifest.filter(pl.col("arm") == arms[0])
    n_batches = rows.select("epoch", "step").n_unique()
    first, last = (figure(end) for end in difficulty_ends(rows))
    batches = count(n_batches, "batch", "batches")
    drawn = card(
        f"Median difficulty: {first} in the first tenth of {batches}, {last} in the last",
        note=f"order {' beside '.join(arms)}; line: median of a batch; band: its middle eight tenths",
        widths=[1.0] * len(arms),
        share_y=True,
    )
    for axes, arm, colour in zip(drawn.axes, arms, (BLUE, AMBER), strict=False):
        curve = curves[arm]
        axes.fill_between(curve["batch"], curve["low"], curve["high"], color=colour, alpha=0.22, linewidth=0)
        marker = "o" if curve.height == 1 else None
        axes.plot(curve["batch"], curve["middle"], color=colour, linewidth=1.8, marker=marker)
        _mark_epochs(axes, manifest.filter(pl.col("arm") == arm))
        axes.margins(x=0.01)
        whole_ticks(axes.xaxis)
        label(axes, x=f"batch, in the order {arm}", y="difficulty" if arm == arms[0] else "")
    return png(drawn)


def figure_manifests(manifests: pl.DataFrame) -> bytes:
    """How much a manifest orders, and what it was planned from.

    Args:
        manifests: Table `manifests`; the last row is shown.

    Returns:
        PNG bytes.
    """
    if manifests.is_empty():
        return message("No manifest", NO_MANIFEST)
    row = manifests.row(-1, named=True)
    batches, epochs = count(row["n_steps"], "batch", "batches"), count(row["n_epochs"], "epoch")
    rows = [
        ("exported", row["planner"]),
        ("prompts", count(row["n_prompts"])),
        ("batches", f"{batches} in {epochs}"),
        ("manifest", short(row["manifest_id"])),
        ("planned from", short(row["inputs_digest"])),
        ("follows", short(row["parent_manifest_id"])),
    ]
    title = f"{count(row['n_arms'], 'arm')} planned from the same prompts; {row['planner']} is exported"
    return facts(title, rows)


def figure_batch_metrics(metrics: pl.DataFrame, manifest: pl.DataFrame, planner: str) -> bytes:
    """How many clusters a batch mixes, arm by arm, and which ones the exported order draws from.

    Args:
        metrics: Table `batch_metrics` of one manifest.
        manifest: Table `batch_manifest` of the same manifest; the arm `planner` is enough.
        planner: The arm that is exported.

    Returns:
        PNG bytes.
    """
    if metrics.is_empty():
        return message("No batches to measure", NO_MANIFEST)
    drawn = card(
        _mixing(metrics, planner),
        note=f"left: cluster entropy, smoothed; right: where {planner} takes its prompts from",
        widths=(1.25, 1.0),
        height=3.9,
    )
    _draw_entropy(drawn.axes[0], metrics, planner)
    _draw_heat(drawn.axes[1], manifest.filter(pl.col("arm") == planner))
    return png(drawn)


def figure_deferred_prompts(deferred: pl.DataFrame, planner: str) -> bytes:
    """Why prompts are not in the exported order.

    Args:
        deferred: Table `deferred_prompts` of one manifest.
        planner: The arm that is exported.

    Returns:
        PNG bytes.
    """
    rows = deferred.filter(pl.col("arm") == planner)
    if rows.is_empty():
        return message("No prompt is left out", f"Every kept training prompt is in the order {planner}.")
    counted = rows.group_by("reason_code").agg(pl.len().cast(pl.Int64).alias("n"))
    counted = counted.sort(["n", "reason_code"], descending=[True, False])
    drawn = card(
        f"{count(rows['prompt_id'].n_unique(), 'prompt')} left out of the order {planner}",
        note="in one epoch or more; deferred_prompts names each with its reason",
        height=1.15 + 0.34 * counted.height,
    )
    numbers = [float(number) for number in counted["n"]]
    names = [REASONS.get(code, code.replace("_", " ")) for code in counted["reason_code"]]
    bars(drawn.axes[0], names, numbers, [count(number) for number in numbers], VERMILION)
    label(drawn.axes[0], x="prompts" if rows["epoch"].n_unique() == 1 else "prompts, summed over epochs")
    return png(drawn)


REASONS = {
    "filtered": "filtered for quality",
    "random_drop": "dropped at random",
    "tail": "would not fill a batch",
    "not_unlocked": "stage not yet unlocked",
    "too_long": "too long for the trainer",
}


def numbered(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of one arm with `batch`, the number of their batch over all epochs, counted from 0."""
    order = rows.select("epoch", "step").unique().sort("epoch", "step").with_row_index("batch")
    return rows.join(order, on=["epoch", "step"]).with_columns(pl.col("batch").cast(pl.Int64))


def difficulty_ends(rows: pl.DataFrame) -> tuple[float, float]:
    """Median difficulty of the first and the last tenth of the batches of one arm."""
    batches = numbered(rows)
    n_batches = batches["batch"].n_unique()
    tenth = max(1, n_batches // 10)
    first = batches.filter(pl.col("batch") < tenth)["difficulty"].median()
    last = batches.filter(pl.col("batch") >= n_batches - tenth)["difficulty"].median()
    return float(first), float(last)  # type: ignore[arg-type]


def _grouped(rows: pl.DataFrame) -> pl.DataFrame:
    """Numbered rows with `group`, so many neighbouring batches that at most `MAX_POINTS` groups remain."""
    batches = numbered(rows)
    size = -(-int(largest(batches, "batch")) // MAX_POINTS) or 1
    return batches.with_columns((pl.col("batch") // size * size).alias("group"))


def _difficulty_curve(rows: pl.DataFrame) -> pl.DataFrame:
    quantiles = [
        pl.col("difficulty").quantile(level, "linear").alias(name)
        for level, name in ((0.1, "low"), (0.5, "middle"), (0.9, "high"))
    ]
    return _grouped(rows).group_by("group").agg(quantiles).sort("group").rename({"group": "batch"})


def _mark_epochs(axes: Axes, rows: pl.DataFrame) -> None:
    starts = numbered(rows).group_by("epoch").agg(pl.col("batch").min()).sort("epoch")["batch"].to_list()
    for start in starts[1:12]:
        axes.axvline(start - 0.5, color=FAINT, linewidth=0.9, linestyle=(0, (2, 2)))


def _mixing(metrics: pl.DataFrame, planner: str) -> str:
    means = dict(metrics.group_by("arm").agg(pl.col("n_clusters").mean()).iter_rows())
    if planner not in means:
        return f"Nothing was measured of {planner}"
    words = f"A batch of {planner} mixes {figure(means[planner])} clusters on average"
    return f"{words}, one of shuffle {figure(means['shuffle'])}" if "shuffle" in means else words


def _draw_entropy(axes: Axes, metrics: pl.DataFrame, planner: str) -> None:
    """One smoothed line per arm, the exported one and shuffle in colour, named at their ends."""
    colours = {planner: BLUE, "shuffle": AMBER}
    ends: list[tuple[float, str, str]] = []
    longest = 1
    for arm in sorted(metrics["arm"].unique(), key=lambda arm: (arm == planner, arm == "shuffle", arm)):
        rows = numbered(metrics.filter(pl.col("arm") == arm)).sort("batch")
        window = max(1, rows.height // 12)
        smooth = rows["cluster_entropy"].rolling_mean(window, min_samples=1, center=True).to_numpy()
        colour = colours.get(arm, FAINT)
        marker = "o" if rows.height == 1 else None
        axes.plot(rows["batch"], smooth, color=colour, linewidth=2.0 if arm in colours else 1.1, marker=marker)
        ends.append((float(smooth[-1]), arm.replace("_", " "), colour))
        longest = max(longest, rows.height)
    axes.set_xlim(-0.5, longest - 0.5)
    axes.set_ylim(bottom=0.0)
    if axes.get_ylim()[1] < 0.1:
        axes.set_ylim(0.0, 1.0)
    whole_ticks(axes.xaxis)
    end_labels(axes, ends)
    label(axes, x="batch", y="cluster entropy (nats)")


def _draw_heat(axes: Axes, rows: pl.DataFrame) -> None:
    """Prompts per batch from each cluster; clusters down, batches across."""
    axes.grid(visible=False)
    if rows.is_empty():
        axes.set_axis_off()
        return
    grouped = _grouped(rows)
    shown = np.arange(min(int(largest(grouped, "cluster_id")) + 1, MAX_ROWS))
    groups = grouped["group"].unique().sort().to_numpy()
    kept = grouped.filter(pl.col("cluster_id") < len(shown))
    batches = grouped.group_by("group").agg(pl.col("batch").n_unique()).sort("group")["batch"].to_numpy()
    image = np.zeros((len(shown), len(groups)))
    np.add.at(image, (kept["cluster_id"].to_numpy(), np.searchsorted(groups, kept["group"].to_numpy())), 1.0)
    extent = (-0.5, largest(grouped, "batch") + 0.5, len(shown) - 0.5, -0.5)
    drawn = axes.imshow(
        image / batches, aspect="auto", cmap=heat_colours(), vmin=0.0, extent=extent, interpolation="nearest"
    )
    bar = axes.figure.colorbar(drawn, ax=axes, fraction=0.05, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, labelcolor=INK, length=0)
    label(bar.ax, y="prompts in a batch")
    whole_ticks(axes.xaxis)
    whole_ticks(axes.yaxis)
    label(axes, x="batch", y="cluster, largest first")
