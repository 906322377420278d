"""Figures of the order: how difficulty runs over the steps, and what is left out of it.

Belongs here: `batch_manifest`, `manifests`, `deferred_prompts`, and how batches become points along an axis. Does not
belong here: what is measured of a batch (batch_metrics), the files that trainers read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from saerl_assets.report.marks import bars, facts, whole_ticks
from saerl_assets.report.style import (
    AMBER,
    BLUE,
    FAINT,
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
        mark_epochs(axes, manifest.filter(pl.col("arm") == arm))
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
    "out_of_range": "outside the difficulty range",
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


def grouped(rows: pl.DataFrame) -> pl.DataFrame:
    """Numbered rows with `group`, so many neighbouring batches that at most `MAX_POINTS` groups remain."""
    batches = numbered(rows)
    size = -(-int(largest(batches, "batch")) // MAX_POINTS) or 1
    return batches.with_columns((pl.col("batch") // size * size).alias("group"))


def _difficulty_curve(rows: pl.DataFrame) -> pl.DataFrame:
    quantiles = [
        pl.col("difficulty").quantile(level, "linear").alias(name)
        for level, name in ((0.1, "low"), (0.5, "middle"), (0.9, "high"))
    ]
    return grouped(rows).group_by("group").agg(quantiles).sort("group").rename({"group": "batch"})


def mark_epochs(axes: Axes, rows: pl.DataFrame) -> None:
    """Dashes where an epoch of one arm begins, but for the first one."""
    starts = numbered(rows).group_by("epoch").agg(pl.col("batch").min()).sort("epoch")["batch"].to_list()
    for start in starts[1:12]:
        axes.axvline(start - 0.5, color=FAINT, linewidth=0.9, linestyle=(0, (2, 2)))
