"""Figures of what was taken up: prompts, the rows that were not, and what is known about them.

Belongs here: `prompts`, `rejected_rows`, `label_observations` and `labels`. Does not belong here: anything a
model said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.report.marks import bars, histogram, median_line, whole_ticks
from saerl_assets.report.style import AMBER, BLUE, CARD, VERMILION, card, finite, label, message, png
from saerl_assets.report.words import count, cut, listed, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

MAX_LABELS = 4
MAX_BARS = 12


def figure_prompts(prompts: pl.DataFrame) -> bytes:
    """How long the prompts are, by split.

    Args:
        prompts: Table `prompts`: `n_tokens` and `split`, and `n_rows` if duplicates are to be said.

    Returns:
        PNG bytes.
    """
    tokens = finite(prompts, "n_tokens")
    if not tokens.size:
        return message("No prompt was taken", "Look at rejected_rows: it says why, row by row.")
    splits = [split for split in ("train", "evaluation") if (prompts["split"] == split).any()]
    groups = {split: finite(prompts.filter(pl.col("split") == split), "n_tokens") for split in splits}
    colours = (BLUE, AMBER)
    folded = int(prompts["n_rows"].sum()) - prompts.height if "n_rows" in prompts.columns else 0
    drawn = card(
        f"{count(tokens.size, 'prompt')}, median {count(float(np.median(tokens)), 'token')}",
        key=[(f"{count(groups[split].size)} {split}", colour) for split, colour in zip(splits, colours, strict=False)],
        note=f"{count(folded, 'duplicate row')} folded in" if folded else "",
    )
    axes = drawn.axes[0]
    beyond = histogram(axes, groups, colours)
    median_line(axes, float(np.median(tokens)), "median")
    further = f" ({count(beyond)} longer, up to {count(tokens.max())}, not shown)" if beyond else ""
    label(axes, x=f"tokens in a prompt{further}", y="prompts")
    return png(drawn)


def figure_rejected_rows(rejected: pl.DataFrame, *, n_rows: int = 0) -> bytes:
    """Why rows of the source were not taken.

    Args:
        rejected: Table `rejected_rows`: `reason_code`.
        n_rows: Rows in the source, for the share; 0 leaves it out.

    Returns:
        PNG bytes.
    """
    if rejected.is_empty():
        return message("No row was rejected", "Every row of the source became a prompt or was folded into one.")
    reasons = _counted(rejected, "reason_code")
    of_all = f" of {count(n_rows)} ({share(rejected.height / n_rows)})" if n_rows else ""
    drawn = card(
        f"{count(rejected.height, 'row')}{of_all} could not be used",
        note="rejected_rows has each one with its line and the remedy",
        height=1.15 + 0.32 * reasons.height,
    )
    numbers = [float(number) for number in reasons["n"]]
    names = [name.replace("_", " ") for name in reasons["name"]]
    bars(drawn.axes[0], names, numbers, [count(number) for number in numbers], VERMILION)
    label(drawn.axes[0], x="rows")
    return png(drawn)


def figure_label_observations(observations: pl.DataFrame) -> bytes:
    """How many values were observed, by label and source.

    Args:
        observations: Table `label_observations`: `label`, `source`, `prompt_id`.

    Returns:
        PNG bytes.
    """
    if observations.is_empty():
        return message("No label was observed", HOW_TO_LABEL)
    counted = _counted(
        observations.with_columns(pl.concat_str("label", pl.lit(", from "), "source").alias("name")), "name"
    )
    n_labels = observations["label"].n_unique()
    n_prompts = observations["prompt_id"].n_unique()
    drawn = card(
        f"{count(observations.height, 'observation')} of {count(n_labels, 'label')}, on {count(n_prompts, 'prompt')}",
        height=0.95 + 0.34 * counted.height,
    )
    numbers = [float(number) for number in counted["n"]]
    bars(drawn.axes[0], counted["name"].to_list(), numbers, [count(number) for number in numbers], BLUE)
    label(drawn.axes[0], x="observations")
    return png(drawn)


HOW_TO_LABEL = (
    "Add a table [labels.NAME] with `column = ...` to the spec, or `source = 'path:FILE'` for values in a "
    "file of their own. Without labels, difficulty is the summed activation and nothing is filtered by "
    "quality."
)


def figure_labels(labels: pl.DataFrame) -> bytes:
    """How the values of each label are spread.

    Args:
        labels: Table `labels`: `label`, `value`, `spread`.

    Returns:
        PNG bytes.
    """
    names = labels["label"].drop_nulls().unique().sort().to_list()
    values = {name: finite(labels.filter(pl.col("label") == name), "value") for name in names}
    names = [name for name in names if values[name].size]
    if not names:
        return message("No prompt has a label", HOW_TO_LABEL)
    disagreeing = labels.filter(pl.col("spread") > 0).height
    shown = names[:MAX_LABELS]
    drawn = card(
        "Labels: " + listed([f"{name} for {count(values[name].size, 'prompt')}" for name in names], 4),
        note=f"{count(disagreeing, 'value')} averaged over observations that disagree" if disagreeing else "",
        widths=[1.0] * len(shown),
        height=3.2,
    )
    for axes, name in zip(drawn.axes, shown, strict=True):
        _draw_values(axes, values[name])
        label(axes, x=cut(name, 30), y="prompts" if name == shown[0] else "")
    return png(drawn)


def _draw_values(axes: Axes, values: NDArray[np.float64]) -> None:
    """Bars at the values where there are few different ones, else a histogram."""
    distinct, numbers = np.unique(values, return_counts=True)
    if distinct.size > MAX_BARS:
        histogram(axes, {"": values}, [BLUE], n_bins=25)
        return
    width = 0.8 * float(np.diff(distinct).min()) if distinct.size > 1 else 0.2
    axes.bar(distinct, numbers, width=width, color=BLUE, edgecolor=CARD, linewidth=0.6)
    axes.grid(visible=False, axis="x")
    whole_ticks(axes.yaxis)
    if distinct.size == 1:
        axes.set_xlim(distinct[0] - 1.0, distinct[0] + 1.0)
    if distinct.size <= 6:
        axes.set_xticks(distinct)


def _counted(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """Values of a column with their counts, most frequent first; at most `MAX_BARS`, the rest as one row."""
    counted = (
        frame.group_by(pl.col(column).alias("name"))
        .agg(pl.len().cast(pl.Int64).alias("n"))
        .sort(["n", "name"], descending=[True, False])
    )
    if counted.height <= MAX_BARS:
        return counted
    rest = counted[MAX_BARS - 1 :]
    other = pl.DataFrame({"name": [f"{rest.height} others"], "n": [int(rest["n"].sum())]})
    return pl.concat([counted[: MAX_BARS - 1], other])
