"""Figures and tables of hygiene: where near-duplicates are and how near, and what repeats evaluation rows.

Belongs here: `near_duplicates` and `contamination`. Does not belong here: the clusters themselves (clusters.py), and
what is left out of the order (batches.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.report.blocks import Cell, Column, Table, cells, columns, number, rows
from saerl_assets.report.marks import bars, thinned, whole_ticks
from saerl_assets.report.style import (
    BLUE,
    GREEN,
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
from saerl_assets.report.words import count, cut, figure, share, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_CLUSTERS = 14
MAX_FILES = 12
MAX_ROWS = 100
"""Rows of a table on the page; the warehouse has all."""
TEXT_LIMIT = 240
FOUND_BY = {"text": ("by text alone", BLUE), "features": ("by features alone", VERMILION), "both": ("by both", GREEN)}
HIT_BY = {
    "ngrams": "shares words in a row",
    "whole_text": "holds the whole row",
    "near_duplicate": "nearly repeats the row",
}


def figure_near_duplicates(near_duplicates: pl.DataFrame, assignments: pl.DataFrame) -> bytes:
    """In which clusters prompts nearly repeat each other, and how near they are by text and by features.

    Args:
        near_duplicates: Table `near_duplicates`.
        assignments: Table `cluster_assignments`.

    Returns:
        PNG bytes.
    """
    if near_duplicates.is_empty():
        return message(
            "No prompt nearly repeats another one", "Every prompt differs from all others in words or numbers."
        )
    n_groups = near_duplicates["group_id"].n_unique()
    n_all = max(assignments.height, near_duplicates.height)
    found = [kind for kind in FOUND_BY if (near_duplicates["found_by"] == kind).any()]
    drawn = card(
        f"{count(near_duplicates.height, 'prompt')} ({share(near_duplicates.height / n_all)}) nearly repeat another, "
        f"in {count(n_groups, 'group')}; the largest has {count(largest(near_duplicates, 'n_prompts'))}",
        key=[FOUND_BY[kind] for kind in found],
        note="left: by cluster; right: each prompt and the one nearest to it",
        widths=(1.0, 1.15),
        height=3.9,
    )
    _draw_clusters(drawn.axes[0], near_duplicates, assignments)
    _draw_nearness(drawn.axes[1], near_duplicates)
    return png(drawn)


def figure_contamination(contamination: pl.DataFrame) -> bytes:
    """How many training prompts repeat rows of each evaluation file.

    Args:
        contamination: Table `contamination`.

    Returns:
        PNG bytes.
    """
    if contamination.is_empty():
        return message(
            "No training prompt repeats an evaluation row",
            "Looked at: the version's own evaluation split, and the files that hygiene.evaluation names.",
        )
    counted = (
        contamination.group_by("evaluation", "found_by")
        .agg(n=pl.col("prompt_id").n_unique().cast(pl.Int64))
        .sort(["n", "evaluation", "found_by"], descending=[True, False, False])[:MAX_FILES]
    )
    drawn = card(
        f"{count(contamination['prompt_id'].n_unique(), 'training prompt')} "
        f"{'repeats' if contamination['prompt_id'].n_unique() == 1 else 'repeat'} "
        f"{count(contamination.select('evaluation', 'evaluation_row').n_unique(), 'evaluation row')}",
        note="training prompts by evaluation file and by what they share with it",
        height=1.15 + 0.34 * counted.height,
    )
    numbers = [float(found) for found in counted["n"]]
    names = [
        f"{_tail(evaluation, 30)}: {HIT_BY.get(found_by, found_by)}"
        for evaluation, found_by in counted.select("evaluation", "found_by").iter_rows()
    ]
    bars(drawn.axes[0], names, numbers, [count(found) for found in numbers], VERMILION)
    label(drawn.axes[0], x="training prompts")
    return png(drawn)


def near_duplicates_table(near_duplicates: pl.DataFrame, prompts: pl.DataFrame, assignments: pl.DataFrame) -> Table:
    """The members of the largest groups with their clusters, each beside its closest link."""
    shown = (
        near_duplicates.sort("group_id", "role", "prompt_id", descending=[False, True, False])[:MAX_ROWS]
        .join(prompts.select("prompt_id", "text"), on="prompt_id", how="left", maintain_order="left")
        .join(assignments.select("prompt_id", "cluster_id"), on="prompt_id", how="left", maintain_order="left")
    )
    made = [
        cells(
            number(row["group_id"], str(row["group_id"])),
            Cell(row["role"]),
            Cell(short(row["prompt_id"])),
            Cell(cut(row["text"] or "", TEXT_LIMIT)),
            Cell("" if row["cluster_id"] is None else str(row["cluster_id"])),
            number(row["jaccard"], figure(row["jaccard"])),
            number(row["similarity"], figure(row["similarity"])),
            Cell(row["found_by"]),
        )
        for row in shown.iter_rows(named=True)
    ]
    whole = shown.height == near_duplicates.height
    return Table(
        "near-duplicates-table",
        "Near-duplicates" if whole else f"The first {MAX_ROWS} of {count(near_duplicates.height)} near-duplicates",
        columns(
            Column("group", "number"),
            Column("role", facet=True),
            Column("prompt", "place"),
            Column("text", "long"),
            Column("cluster", facet=True),
            Column("text overlap", "number"),
            Column("feature cosine", "number"),
            Column("found by", facet=True),
        ),
        rows(made),
    )


def contamination_table(contamination: pl.DataFrame) -> Table:
    """The training prompts that repeat evaluation rows, the closest first."""
    shown = contamination.sort(["overlap_fraction", "prompt_id", "evaluation_row"], descending=[True, False, False])[
        :MAX_ROWS
    ]
    made = [
        cells(
            Cell(short(row["prompt_id"])),
            Cell(_tail(row["evaluation"], 40)),
            Cell(_tail(row["evaluation_row"], 40)),
            number(row["overlap_fraction"], share(row["overlap_fraction"])),
            Cell(cut(row["shared_text"], TEXT_LIMIT)),
            Cell(HIT_BY.get(row["found_by"], row["found_by"])),
        )
        for row in shown.iter_rows(named=True)
    ]
    whole = shown.height == contamination.height
    return Table(
        "contamination-table",
        "Evaluation rows among the prompts"
        if whole
        else f"The closest {MAX_ROWS} of {count(contamination.height)} hits",
        columns(
            Column("prompt", "place"),
            Column("evaluation", facet=True),
            Column("row", "place"),
            Column("overlap", "number"),
            Column("shared text", "long"),
            Column("how", facet=True),
        ),
        rows(made),
    )


def _draw_clusters(axes: Axes, near_duplicates: pl.DataFrame, assignments: pl.DataFrame) -> None:
    """Prompts of groups in the clusters that have most, as a share of the cluster in words."""
    sizes = assignments.group_by("cluster_id").agg(size=pl.len())
    counted = (
        near_duplicates.join(assignments.select("prompt_id", "cluster_id"), on="prompt_id")
        .group_by("cluster_id")
        .agg(n=pl.len().cast(pl.Int64))
        .join(sizes, on="cluster_id")
        .sort(["n", "cluster_id"], descending=[True, False])[:MAX_CLUSTERS]
    )
    if counted.is_empty():
        axes.set_axis_off()
        return
    places = np.arange(counted.height)
    axes.barh(places, counted["n"].to_numpy(), height=0.66, color=SKY)
    axes.set_ylim(MAX_CLUSTERS - 0.4, -0.6)
    axes.set_xlim(0.0, 1.45 * float(finite(counted, "n").max()))
    axes.grid(visible=False, axis="y")
    tick_names(axes, places.tolist(), [str(cluster) for cluster in counted["cluster_id"]])
    for place, (_, n, size) in enumerate(counted.iter_rows()):
        write(axes, n, place, f"{count(n)}, {share(n / size)}", points=4.0)
    whole_ticks(axes.xaxis)
    label(axes, x="prompts in groups, and their share of the cluster", y="cluster")


def _draw_nearness(axes: Axes, near_duplicates: pl.DataFrame) -> None:
    """One dot a prompt: overlap of text across, cosine of features up."""
    sample = thinned(near_duplicates, "prompt_id")
    for kind, (_, colour) in FOUND_BY.items():
        dots = sample.filter(pl.col("found_by") == kind)
        if dots.height:
            axes.scatter(dots["jaccard"], dots["similarity"], s=14, color=colour, alpha=0.55, linewidths=0)
    axes.set_xlim(min(float(finite(sample, "jaccard").min(initial=0.9)), 0.9) - 0.03, 1.02)
    axes.set_ylim(min(float(finite(sample, "similarity").min(initial=0.9)), 0.9) - 0.03, 1.02)
    label(axes, x="text overlap (Jaccard)", y="feature cosine")


def _tail(text: str, limit: int) -> str:
    """The end of a name, which tells files apart."""
    return text if len(text) <= limit else f"…{text[1 - limit :]}"
