"""Figures of quality: how well the probe predicts correct outcomes, whether its probabilities hold, what is dropped.

Belongs here: `quality_probe`, `probe_calibration` and `quality_scores`. Does not belong here: deferred prompts of a
manifest (batches.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.report.marks import bars, histogram
from saerl_assets.report.style import (
    AMBER,
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
from saerl_assets.report.words import count, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

CHANCE = 0.5


def figure_quality_probe(metrics: pl.DataFrame, *, min_auroc: float) -> bytes:
    """How well the probe predicts, on rows held out and on rows that it was fitted to.

    Args:
        metrics: Table `quality_probe`.
        min_auroc: `quality.min_auroc` of the spec, under which the probe filters nothing.

    Returns:
        PNG bytes.
    """
    if metrics.is_empty():
        return message("No probe", "Materialise quality_probe: it needs outcome labels and features.")
    measured = metrics.filter(pl.col("auroc").is_not_null() & pl.col("auroc").is_finite())
    if measured.is_empty():
        return message("No quality probe was trained", metrics["explanation"][0])
    measured = measured.sort("rows", descending=True)  # held_out before fitted
    names = [rows.replace("_", " ") for rows in measured["rows"]]
    n_labelled = count(largest(measured, "n_rows"), "labelled prompt")
    drawn = card(
        _verdict(measured, min_auroc),
        note=f"on {n_labelled}; what it was fitted to is no evidence",
        widths=(1.3, 1.0),
        height=1.55 + 0.36 * len(names),
        share_y=True,
    )
    _draw_auroc(drawn.axes[0], names, measured, min_auroc)
    _draw_brier(drawn.axes[1], names, measured)
    return png(drawn)


def figure_probe_calibration(curve: pl.DataFrame) -> bytes:
    """What share of outcomes was correct where the probe predicted which.

    Args:
        curve: Table `probe_calibration`.

    Returns:
        PNG bytes.
    """
    if curve.is_empty():
        return message("No calibration curve", "Materialise probe_calibration: it needs outcome labels and features.")
    curve = curve.sort("probe", "bin")
    predicted, observed = finite(curve, "predicted"), finite(curve, "observed")
    low, high = finite(curve, "observed_low"), finite(curve, "observed_high")
    n_apart = int(np.count_nonzero((predicted < low) | (predicted > high)))
    drawn = card(
        f"The probability holds in {count(len(predicted) - n_apart)} of {count(len(predicted), 'bin')}",
        key=[("observed, with its 95% interval", BLUE), ("as predicted", FAINT)],
        note=f"{count(int(curve['n_rows'].sum()), 'prompt')} that it has not seen",
    )
    axes = drawn.axes[0]
    axes.plot([0.0, 1.0], [0.0, 1.0], color=FAINT, linewidth=1.2, zorder=1)
    bounds = np.maximum([observed - low, high - observed], 0.0)
    axes.errorbar(predicted, observed, yerr=bounds, fmt="o-", color=BLUE, markersize=4.0, linewidth=1.2, elinewidth=1.0)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    label(axes, x="predicted probability of a correct outcome", y="share of correct outcomes")
    return png(drawn)


def figure_quality_scores(scores: pl.DataFrame) -> bytes:
    """Predicted quality, and which prompts are dropped for it.

    Args:
        scores: Table `quality_scores`.

    Returns:
        PNG bytes.
    """
    if scores.is_empty():
        return message("No quality scores", "Materialise quality_scores: it needs quality_probe.")
    known = scores.filter(pl.col("quality").is_not_null() & pl.col("quality").is_finite())
    n_dropped = scores.filter(~pl.col("kept")).height
    if known.is_empty():
        return message(f"No probe scored the {count(scores.height, 'prompt')}", _first_reason(scores))
    kept, dropped = (
        finite(known.filter(pl.col("kept")), "quality"),
        finite(known.filter(~pl.col("kept")), "quality"),
    )
    drawn = card(
        f"{count(n_dropped)} of {count(scores.height, 'prompt')} dropped for quality"
        if n_dropped
        else f"All {count(scores.height, 'prompt')} kept",
        key=[(f"{count(kept.size)} kept", BLUE)]
        + ([(f"{count(dropped.size)} dropped", VERMILION)] if n_dropped else []),
        note="" if n_dropped else _first_reason(scores),
    )
    axes = drawn.axes[0]
    histogram(axes, {"dropped": dropped, "kept": kept}, [VERMILION, BLUE])
    if dropped.size:
        cut_at = float(dropped.max())
        axes.axvline(cut_at, color=INK, linewidth=1.0, linestyle=(0, (3, 2)))
        low, high = axes.get_ylim()
        write(axes, cut_at, low + 0.96 * (high - low), f"cut at {figure(cut_at)}", points=4.0, color=INK)
    label(axes, x="predicted probability of a correct outcome", y="prompts")
    return png(drawn)


def _verdict(measured: pl.DataFrame, min_auroc: float) -> str:
    held_out = measured.filter(pl.col("rows") == "held_out")
    if held_out.is_empty():
        return "The probe was not measured on rows held out, so nothing is known of it"
    auroc = float(held_out["auroc"][0])
    verdict = "good enough to filter by" if auroc >= min_auroc else "too weak to filter by"
    return f"The probe reaches AUROC {figure(auroc)} on rows held out: {verdict}"


def _draw_auroc(axes: Axes, names: list[str], measured: pl.DataFrame, min_auroc: float) -> None:
    """How far the probe is above or below chance, with its interval; the bars start there."""
    values = finite(measured, "auroc")
    places = np.arange(len(names))
    colours = [SKY if name == "fitted" else BLUE for name in names]
    axes.barh(places, values - CHANCE, left=CHANCE, height=0.66, color=colours)
    for place, value, (low, high) in zip(places, values, _intervals(measured), strict=True):
        if high > low:
            axes.plot([low, high], [place, place], color=INK, linewidth=1.0, zorder=4)
        said = figure(float(value)) + (f" ({figure(low)} to {figure(high)})" if high > low else "")
        write(axes, max(float(value), high, CHANCE), float(place), said, points=4.0, color=INK)
    axes.axvline(CHANCE, color=FAINT, linewidth=0.8)
    axes.axvline(min_auroc, color=INK, linewidth=1.2, zorder=4)
    write(axes, min_auroc, -0.85, f"needs {figure(min_auroc)}", points=4.0, color=INK)
    axes.set_xlim(min(CHANCE - 0.08, float(values.min()) - 0.02), 1.25)
    axes.set_ylim(len(names) - 0.4, -1.15)
    axes.grid(visible=False, axis="y")
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([tick for tick in (0.0, 0.25, 0.5, 0.75, 1.0) if tick >= axes.get_xlim()[0]])
    tick_names(axes, places.tolist(), names)
    label(axes, x="area under the ROC curve (AUROC; 0.5 is chance)")


def _intervals(measured: pl.DataFrame) -> NDArray[np.float64]:
    """Lower and upper ends, float64 [n, 2]; zeros where there is no interval."""
    ends = measured.select(pl.col("auroc_low", "auroc_high").cast(pl.Float64).fill_null(0.0).fill_nan(0.0))
    return ends.to_numpy().astype(np.float64)


def _draw_brier(axes: Axes, names: list[str], measured: pl.DataFrame) -> None:
    """The squared error beside that of always saying the base rate, p (1 - p)."""
    brier = measured["brier"].cast(pl.Float64).fill_null(0.0).fill_nan(0.0).to_list()
    bars(axes, names, brier, [figure(value) for value in brier], BLUE)
    for patch, name in zip(axes.patches, names, strict=True):
        patch.set_facecolor(SKY if name == "fitted" else BLUE)
    axes.tick_params(labelleft=False)
    base = finite(measured, "base_rate")
    guess = float(base[0] * (1.0 - base[0])) if base.size else 0.0
    axes.set_xlim(0.0, max([*brier, guess, 0.05]) * 1.35)
    axes.set_ylim(len(names) - 0.4, -1.15)
    if base.size:
        axes.axvline(guess, color=AMBER, linewidth=1.4, zorder=4)
        write(axes, guess, -0.85, "always the base rate", points=-4.0, color=INK)
    label(axes, x="squared error (Brier; less is better)")


def _first_reason(scores: pl.DataFrame) -> str:
    """The most frequent reason in words."""
    counted = scores.group_by("reason").len().sort(["len", "reason"], descending=[True, False])
    return str(counted["reason"][0])
