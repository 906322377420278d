"""Figures of what the model made of the prompts: sparse features, dense states, density of features.

Belongs here: `prompt_features`, `prompt_states` and `feature_density`. Does not belong here: what is
concluded from them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.report.marks import histogram, median_line, thinned
from saerl_assets.report.style import (
    BLUE,
    FAINT,
    INK,
    MUTED,
    SERIES,
    VERMILION,
    card,
    finite,
    label,
    message,
    plain_numbers,
    png,
    write,
)
from saerl_assets.report.words import count, cut, figure, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

MAX_TOPICS = 5


def figure_prompt_features(counts: pl.DataFrame) -> bytes:
    """How many features are active in a prompt, and how much of that is its length.

    Args:
        counts: One row per prompt: `prompt_id` or `text_id`, `n_tokens`, `n_active_features`.

    Returns:
        PNG bytes.
    """
    counts = counts.drop_nulls(["n_tokens", "n_active_features"])
    active = finite(counts, "n_active_features")
    if not active.size:
        return message("No prompt was read", "Materialise prompt_features: it reads the prompts through model and SAE.")
    key = "prompt_id" if "prompt_id" in counts.columns else "text_id"
    correlation = counts.select(pl.corr("n_tokens", "n_active_features", method="spearman")).item()
    drawn = card(
        f"{count(active.size, 'prompt')}, median {count(float(np.median(active)), 'active feature')}; "
        f"rank correlation with length {figure(correlation)}",
        note="where that is near 1, counting features is measuring length",
        widths=(1.15, 1.0),
    )
    beyond = histogram(drawn.axes[0], {"": active}, [BLUE])
    median_line(drawn.axes[0], float(np.median(active)), "median")
    further = f" ({count(beyond)} more to the right)" if beyond else ""
    label(drawn.axes[0], x=f"features active in a prompt{further}", y="prompts")
    sample = thinned(counts, key)
    drawn.axes[1].scatter(sample["n_tokens"], sample["n_active_features"], s=7, color=BLUE, alpha=0.35, linewidths=0)
    label(drawn.axes[1], x="tokens in the prompt", y="active features")
    return png(drawn)


def figure_prompt_states(states: pl.DataFrame, prompts: pl.DataFrame) -> bytes:
    """Where the prompts lie in the model's own space, by topic.

    Args:
        states: Table `prompt_states` of one reading: `text_id`, `mean`.
        prompts: Table `prompts`: `text_id`, `topic`.

    Returns:
        PNG bytes.
    """
    states = states.drop_nulls("mean").sort("text_id")
    if states.is_empty():
        return message("No hidden states", "Materialise prompt_states: it keeps the mean hidden state of each prompt.")
    width = len(states["mean"][0])
    matrix = states["mean"].list.to_array(width).to_numpy().astype(np.float64)
    norms = np.linalg.norm(matrix, axis=1)
    places, explained = _principal_plane(matrix)
    topics = prompts.select("text_id", "topic").unique("text_id", keep="first", maintain_order=True)
    plane = pl.DataFrame({"text_id": states["text_id"], "x": places[:, 0], "y": places[:, 1]}).join(
        topics, on="text_id", how="left"
    )
    sample = thinned(plane, "text_id")
    named = _largest_topics(sample)
    drawn = card(
        f"Mean hidden states of {count(states.height, 'text')}; this plane holds {share(explained)} of their variance",
        key=[(cut(name, 22), colour) for name, colour in zip(named, SERIES, strict=False)]
        + ([("other", FAINT)] if named and sample.filter(~pl.col("topic").is_in(named)).height else []),
        widths=(1.5, 1.0),
    )
    _draw_plane(drawn.axes[0], sample, named)
    label(drawn.axes[0], x=f"first principal component of {matrix.shape[1]} dimensions", y="second")
    histogram(drawn.axes[1], {"": norms}, [BLUE])
    label(drawn.axes[1], x="norm of the mean state", y="texts")
    return png(drawn)


def figure_feature_density(density: pl.DataFrame) -> bytes:
    """In how many prompts a feature is active, dead ones apart.

    Args:
        density: Table `feature_density`: `layer`, `n_prompts`.

    Returns:
        PNG bytes.
    """
    if density.is_empty():
        return message("No feature was counted", "Materialise feature_density: it needs prompt_features.")
    dead = density.filter(pl.col("n_prompts") == 0).height
    alive = finite(density.filter(pl.col("n_prompts") > 0), "n_prompts")
    if not alive.size:
        return message("Every feature is dead", "The SAE does not fit this reader or layer: look at sae_health.")
    layers = density["layer"].unique().sort().to_list()
    several = len(layers) > 1
    drawn = card(
        f"{count(density.height, 'feature')}, {share(dead / density.height)} dead; the median of the others "
        f"fires in {count(float(np.median(alive)), 'prompt')}",
        key=[(f"layer {layer}", colour) for layer, colour in zip(layers, SERIES, strict=False)] if several else [],
        widths=(1.0, 7.0),
        share_y=True,
    )
    edges = np.unique(np.round(np.geomspace(1.0, alive.max() + 1.0, 32)))
    edges = edges if edges.size > 1 else np.array([1.0, 2.0])
    for layer, colour in zip(layers, SERIES, strict=False):
        rows = density.filter(pl.col("layer") == layer)
        heights, _ = np.histogram(finite(rows.filter(pl.col("n_prompts") > 0), "n_prompts"), bins=edges)
        if several:
            drawn.axes[1].stairs(heights, edges, color=colour, linewidth=1.6)
        else:
            drawn.axes[1].bar(edges[:-1], heights, width=np.diff(edges) * 0.94, align="edge", color=colour, linewidth=0)
    drawn.axes[1].set_xscale("log")
    drawn.axes[1].set_yscale("symlog", linthresh=1.0)
    drawn.axes[1].set_xlim(edges[0] * 0.93, edges[-1] * 1.05)
    drawn.axes[1].minorticks_off()
    plain_numbers(drawn.axes[1].xaxis)
    plain_numbers(drawn.axes[1].yaxis)
    _draw_dead(drawn.axes[0], dead)
    label(drawn.axes[0], y="features")
    label(drawn.axes[1], x="prompts in which the feature is active")
    return png(drawn)


def _draw_dead(axes: Axes, dead: int) -> None:
    axes.bar([0.0], [float(dead)], width=0.7, color=VERMILION)
    axes.set_xlim(-0.8, 0.8)
    axes.set_xticks([0.0], labels=["dead"])
    axes.grid(visible=False, axis="x")
    if dead:
        write(axes, 0.0, dead * 1.12, count(dead), color=INK, ha="center", va="bottom")


def _draw_plane(axes: Axes, sample: pl.DataFrame, named: list[str]) -> None:
    grey = sample.filter(~pl.col("topic").is_in(named) | pl.col("topic").is_null())
    plain = FAINT if named else BLUE
    axes.scatter(grey["x"], grey["y"], s=8, color=plain, alpha=0.5, linewidths=0)
    for name, colour in zip(named, SERIES, strict=False):
        rows = sample.filter(pl.col("topic") == name)
        axes.scatter(rows["x"], rows["y"], s=9, color=colour, alpha=0.6, linewidths=0)
    axes.tick_params(labelbottom=False, labelleft=False, length=0)
    axes.spines["left"].set_visible(True)
    axes.spines["left"].set_color(MUTED)
    axes.spines["bottom"].set_color(MUTED)
    axes.grid(visible=False)


def _largest_topics(sample: pl.DataFrame) -> list[str]:
    """Names of the most frequent topics, at most as many as can be told apart by colour."""
    counted = sample.drop_nulls("topic").group_by("topic").len().sort(["len", "topic"], descending=[True, False])
    return counted["topic"].head(MAX_TOPICS).to_list()


def _principal_plane(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Coordinates on the first two principal components, float64[n, 2], and the share of variance in them.

    A component's sign is free; its largest entry is made positive, so that the picture is always the same way
    up.
    """
    centred = matrix - matrix.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, ::-1][:, :2]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    places = centred @ (axes * np.where(signs == 0, 1.0, signs))
    if places.shape[1] == 1:
        places = np.column_stack([places, np.zeros(len(places))])
    total = float(np.clip(values, 0.0, None).sum())
    return places, float(values[-2:].sum()) / total if total > 0 else 0.0
