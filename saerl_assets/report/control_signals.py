"""The figure of control signals: how like the version's own they are.

Belongs here: `control_signals`. Does not belong here: the version's own signals (clusters, difficulty).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.domain.agreement import spearman
from saerl_assets.report.marks import heat_colours, thinned, whole_ticks
from saerl_assets.report.style import BLUE, GREEN, card, label, message, png
from saerl_assets.report.words import count, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"dense_difficulty": BLUE, "true_difficulty": GREEN}


def figure_control_signals(signals: pl.DataFrame, assignments: pl.DataFrame, scores: pl.DataFrame) -> bytes:
    """Dense clusters by the version's clusters, and each difficulty by the one in use, as far as they are there.

    Args:
        signals: Table `control_signals`.
        assignments: Table `cluster_assignments`: `prompt_id`, `cluster_id`.
        scores: Table `difficulty_scores`: `prompt_id`, `difficulty`.

    Returns:
        PNG bytes.
    """
    known = signals.join(assignments.select("prompt_id", "cluster_id"), on="prompt_id")
    known = known.join(scores.select("prompt_id", "difficulty"), on="prompt_id")
    panels = [name for name in ("dense_cluster_id", *COLOURS) if known[name].count()]
    if not panels:
        return message(
            "No control needs signals of its own",
            "Name dense_state or true_difficulty in batches.controls of the spec of another version.",
        )
    drawn = card(
        f"What controls of {count(known.height, 'prompt')} are planned on, by the version's own signals",
        note="; ".join(_rank_words(known, name) for name in panels if name in COLOURS),
        widths=[1.0] * len(panels),
        height=3.4,
    )
    for axes, name in zip(drawn.axes, panels, strict=True):
        if name in COLOURS:
            _draw_ranks(axes, known.drop_nulls([name, "difficulty"]), name)
        else:
            _draw_clusters(axes, known.drop_nulls(name))
    return png(drawn)


def _rank_words(known: pl.DataFrame, name: str) -> str:
    both = known.drop_nulls([name, "difficulty"])
    found = spearman(both[name].to_numpy(), both["difficulty"].to_numpy())
    return f"{name.replace('_', ' ')}: Spearman {'not defined' if found is None else figure(found)}"


def _draw_ranks(axes: Axes, both: pl.DataFrame, name: str) -> None:
    """A point a prompt, at its ranks in both scores."""
    share = pl.col("difficulty", name).rank("average") / max(both.height, 1)
    shown = thinned(both.with_columns(share), "prompt_id")
    axes.scatter(shown["difficulty"], shown[name], s=5, color=COLOURS[name], alpha=0.45, linewidths=0)
    axes.set_xlim(0.0, 1.02)
    axes.set_ylim(0.0, 1.02)
    label(axes, x="difficulty in use (rank, 1 hardest)", y=f"{name.replace('_', ' ')} (rank)")


def _draw_clusters(axes: Axes, known: pl.DataFrame) -> None:
    """Where each cluster's prompts are among the dense clusters: a row a cluster, the darker the larger a share."""
    own, dense = (
        np.unique(known[name].to_numpy(), return_inverse=True)[1] for name in ("cluster_id", "dense_cluster_id")
    )
    shares = np.zeros((int(own.max()) + 1, int(dense.max()) + 1))
    np.add.at(shares, (own, dense), 1.0)
    shares /= shares.sum(axis=1, keepdims=True)
    axes.grid(visible=False)
    axes.imshow(shares, aspect="auto", cmap=heat_colours(), vmin=0.0, vmax=1.0, interpolation="nearest")
    whole_ticks(axes.xaxis)
    whole_ticks(axes.yaxis)
    label(axes, x="cluster of dense states, by size", y="cluster of the version, by id")
