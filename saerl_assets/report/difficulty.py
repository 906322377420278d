"""Figures of difficulty: how the score in use is spread, and how well each score ranks what is labelled.

Belongs here: `difficulty_scores` and `difficulty_proxy`. Does not belong here: how batches use it
(batches.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from saerl_assets.report.marks import histogram, thinned
from saerl_assets.report.style import (
    AMBER,
    BLUE,
    CARD,
    FAINT,
    INK,
    MUTED,
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
from saerl_assets.report.words import count, cut, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

UNITS = {
    "count": "active features",
    "count_per_token": "active features on a token",
    "magnitude": "summed activation",
}
UNLEARNED = ("count", "count_per_token", "magnitude")
"""Scores that no label went into."""
MAX_GROUPS = 10
"""Groups that are drawn as boxes; a label with more values is drawn as points."""


def figure_difficulty_scores(
    scores: pl.DataFrame, prompts: pl.DataFrame, labels: pl.DataFrame, *, label_name: str
) -> bytes:
    """How the score in use is spread, against the label where there is one, else by topic.

    Args:
        scores: Table `difficulty_scores`.
        prompts: Table `prompts`: `prompt_id`, `topic`.
        labels: Table `labels`.
        label_name: The label of difficulty, `difficulty.label` of the spec.

    Returns:
        PNG bytes.
    """
    values = finite(scores, "difficulty")
    if not values.size:
        return message("No prompt has a difficulty", "Materialise difficulty_scores: it needs prompt_features.")
    name = scores["score_name"][0]
    unit = UNITS.get(name, f"on the scale of {label_name}")
    known = labels.filter(pl.col("label") == label_name).select("prompt_id", "value")
    labelled = scores.join(known, on="prompt_id").drop_nulls(["difficulty", "value"])
    topics = scores.join(prompts.select("prompt_id", "topic"), on="prompt_id").drop_nulls("topic")
    beside = bool(labelled.height or topics.height)
    drawn = card(
        f"Difficulty of {count(values.size, 'prompt')}: {SCORES.get(name, name)}",
        note=_middle_words(values, unit),
        widths=(1.0, 1.3) if beside else (1.0,),
        height=3.8,
    )
    beyond = histogram(drawn.axes[0], {"": values}, [BLUE])
    label(drawn.axes[0], x=f"{name} ({unit})" + (f"; {count(beyond)} beyond" if beyond else ""), y="prompts")
    if labelled.height:
        _against_label(drawn.axes[1], labelled, label_name, name)
    elif topics.height:
        _by_topic(drawn.axes[1], topics, name)
    return png(drawn)


def figure_difficulty_proxy(metrics: pl.DataFrame) -> bytes:
    """How well each score ranks the labelled prompts.

    Args:
        metrics: Table `difficulty_proxy`.

    Returns:
        PNG bytes.
    """
    if metrics.is_empty():
        return message("No score was measured", "Materialise difficulty_proxy: it needs labels and features.")
    measured = metrics.filter(pl.col("spearman").is_not_null() & pl.col("spearman").is_finite())
    if measured.is_empty():
        return message("No labels to measure the scores against", metrics["explanation"][0])
    ordered = measured.sort(["spearman", "score_name", "rows"], descending=[True, False, False])
    names = [
        f"{row['score_name']}, {row['rows'].replace('_', '-')}" if row["score_name"] == "proxy" else row["score_name"]
        for row in ordered.iter_rows(named=True)
    ]
    drawn = card(
        _ranking(measured),
        key=[("held out", BLUE), ("fitted, not evidence", SKY), ("length alone", AMBER)],
        note=f"on {count(largest(measured, 'n_rows'), 'labelled prompt')}; 95% intervals by bootstrap",
        height=1.4 + 0.32 * ordered.height,
    )
    axes = drawn.axes[0]
    places = np.arange(ordered.height)
    colours = [
        AMBER
        if row["score_name"] == "length"
        else SKY
        if row["rows"] == "fitted" and row["score_name"] == "proxy"
        else BLUE
        for row in ordered.iter_rows(named=True)
    ]
    values = finite(ordered, "spearman")
    axes.barh(places, values, height=0.66, color=colours)
    axes.set_ylim(ordered.height - 0.4, -0.6)
    axes.axvline(0.0, color=FAINT, linewidth=0.8)
    axes.grid(visible=False, axis="y")
    tick_names(axes, places.tolist(), names)
    ends = [_ends(row, value) for row, value in zip(ordered.iter_rows(named=True), values, strict=True)]
    for place, (low, high), value in zip(places, ends, values, strict=True):
        if high > low:
            axes.plot([low, high], [place, place], color=INK, linewidth=1.1, solid_capstyle="butt")
        write(axes, max(high, 0.0), float(place), figure(float(value)), points=4.0, color=INK)
    lowest, highest = min(low for low, _ in ends), max(high for _, high in ends)
    axes.set_xlim(min(0.0, lowest * 1.1), max(0.1, min(1.0, highest) * 1.14))
    label(axes, x="rank correlation with the label (Spearman; 1 is the label's own order, 0 is chance)")
    return png(drawn)


SCORES = {
    "proxy": "the proxy learned from labels",
    "label": "the label where known, else the proxy",
    "count": "the number of active features",
    "count_per_token": "the number of active features on a token",
    "magnitude": "the summed activation",
}


def _ranking(measured: pl.DataFrame) -> str:
    """The comparison that matters, in a sentence: the proxy on rows held out beside length."""
    held_out = measured.filter((pl.col("score_name") == "proxy") & (pl.col("rows") == "held_out"))
    length = measured.filter(pl.col("score_name") == "length")
    against = f"; length alone reaches {figure(length['spearman'][0])}" if length.height else ""
    if held_out.height:
        return f"The proxy ranks held-out prompts at Spearman {figure(held_out['spearman'][0])}{against}"
    best = measured.sort("spearman", descending=True).row(0, named=True)
    return f"No proxy was learned; {best['score_name']} ranks the prompts at Spearman {figure(best['spearman'])}"


def _ends(row: dict[str, Any], value: float) -> tuple[float, float]:
    """The interval of a row; the value alone where there is none."""
    low, high = row["low"], row["high"]
    return (low, high) if low is not None and high is not None and np.isfinite([low, high]).all() else (value, value)


def _middle_words(values: NDArray[np.float64], unit: str) -> str:
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    between = f"{figure(float(low))} and {figure(float(high))}"
    return f"median {figure(float(middle))}; eight in ten lie between {between} ({unit})"


def _against_label(axes: Axes, labelled: pl.DataFrame, label_name: str, score: str) -> None:
    """Boxes for a label of few values, points for one of many."""
    levels = labelled["value"].unique().sort().to_list()
    if len(levels) <= MAX_GROUPS:
        groups = [finite(labelled.filter(pl.col("value") == level), "difficulty") for level in levels]
        _boxes(axes, groups, vertical=True)
        tick_names(axes, list(range(len(levels))), [figure(level) for level in levels], axis="x")
    else:
        sample = thinned(labelled, "prompt_id")
        axes.scatter(sample["value"], sample["difficulty"], s=7, color=BLUE, alpha=0.35, linewidths=0)
    # a score that was learned from these very labels is not measured by them: difficulty_proxy does that, held out
    correlation = labelled.select(pl.corr("value", "difficulty", method="spearman")).item()
    known = f"Spearman {figure(correlation)}" if score in UNLEARNED else "fitted ones included"
    label(axes, x=f"label {cut(label_name, 24)} ({count(labelled.height, 'prompt')}, {known})", y=score)


def _by_topic(axes: Axes, topics: pl.DataFrame, score: str) -> None:
    """Boxes of the most frequent topics, easiest on top."""
    frequent = topics.group_by("topic").len().sort(["len", "topic"], descending=[True, False])["topic"].head(MAX_GROUPS)
    kept = topics.filter(pl.col("topic").is_in(frequent.to_list()))
    ordered = kept.group_by("topic").agg(pl.median("difficulty")).sort("difficulty", "topic")["topic"].to_list()
    groups = [finite(kept.filter(pl.col("topic") == topic), "difficulty") for topic in ordered]
    _boxes(axes, groups, vertical=False)
    axes.set_ylim(len(ordered) - 0.4, -0.6)
    tick_names(axes, list(range(len(ordered))), [cut(topic, 26) for topic in ordered])
    label(axes, x=f"{score}, by topic")


def _boxes(axes: Axes, groups: list[NDArray[np.float64]], *, vertical: bool) -> None:
    """Median, quartiles and the middle eight tenths of each group."""
    axes.boxplot(
        groups,
        positions=range(len(groups)),
        orientation="vertical" if vertical else "horizontal",
        widths=0.6,
        whis=(10, 90),
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": SKY, "edgecolor": CARD, "linewidth": 0.0},
        medianprops={"color": VERMILION, "linewidth": 1.8},
        whiskerprops={"color": MUTED, "linewidth": 0.9},
        capprops={"linewidth": 0.0},
    )
    axes.grid(visible=False, axis="x" if vertical else "y")
