"""The marks that stand for data in several figures: histograms, bars, names at lines, rows of facts.

Belongs here: marks that more than one figure uses. Does not belong here: colours and the card (style.py), and
what any one figure shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.report.style import (
    BLUE,
    CARD,
    FAINT,
    FONT,
    INK,
    MUTED,
    SERIES,
    TEXT,
    WIDTH_INCHES,
    card,
    escape_math,
    png,
    tick_names,
    write,
)
from saerl_assets.report.words import cut

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colors import Colormap
    from numpy.typing import NDArray

SHADES = (*SERIES, "#7A5195", "#4D7C0F", "#8C564B", "#00838F")
"""Colours of many groups beside each other, the house's first; they come again after the last one, so that a group's
number must stand beside its colour."""


def shade_of(group: int) -> int:
    """The place of a group's colour in `SHADES`."""
    return int(group) % len(SHADES)


def histogram(
    axes: Axes, groups: Mapping[str, NDArray[np.float64]], colours: Sequence[str], *, n_bins: int = 40
) -> int:
    """Draws groups as stacked bars over shared bins, whole numbers in whole bins.

    The axis ends a little after the 99.5th percentile of all values, so that one giant does not flatten the
    rest.

    Returns:
        How many values lie beyond the right edge, which the caller must say.
    """
    values = np.concatenate(list(groups.values()))
    edges = bin_edges(values, n_bins)
    floor = np.zeros(len(edges) - 1)
    for (_, group), colour in zip(groups.items(), colours, strict=False):
        heights, _ = np.histogram(group, bins=edges)
        axes.bar(
            edges[:-1],
            heights,
            width=np.diff(edges),
            bottom=floor,
            align="edge",
            color=colour,
            edgecolor=CARD,
            linewidth=0.6,
        )
        floor += heights
    beside = edges[1] - edges[0] if len(edges) == 2 else 0.0  # one bar alone is not to look like a wall
    axes.set_xlim(edges[0] - beside, edges[-1] + beside)
    axes.grid(visible=False, axis="x")
    axes.margins(y=0.08)
    whole_ticks(axes.yaxis)
    if np.array_equal(values, np.round(values)):
        whole_ticks(axes.xaxis)
    return int((values > edges[-1]).sum())


def bin_edges(values: NDArray[np.float64], n_bins: int = 40) -> NDArray[np.float64]:
    """Edges of equal bins from the smallest value to a little after the 99.5th percentile.

    Args:
        values: Finite numbers, float64[n], n of at least 1.
        n_bins: How many bins at most.

    Returns:
        Ascending edges, float64[m], m of at least 2. Whole numbers get bins of whole widths around them.
    """
    low, high = float(values.min()), float(np.quantile(values, 0.995, method="higher"))
    if np.array_equal(values, np.round(values)):
        width = max(1.0, np.ceil((high - low + 1.0) / n_bins))
        n = int(np.ceil((high - low + 1.0) / width))
        return np.linspace(low - 0.5, low - 0.5 + width * max(n, 1), max(n, 1) + 1)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        around = max(abs(low), 1.0) * 0.05
        return np.array([low - around, low + around])
    return np.linspace(low, high, n_bins + 1)


def bars(axes: Axes, names: Sequence[str], values: Sequence[float], said: Sequence[str], colour: str) -> None:
    """Draws horizontal bars, the first on top, each with its value in words at its end.

    Args:
        axes: Where.
        names: What each bar is.
        values: Their lengths.
        said: What is written at their ends.
        colour: Of all of them.
    """
    places = np.arange(len(names))
    axes.barh(places, values, height=0.66, color=colour, zorder=2)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.axvline(0.0, color=FAINT, linewidth=0.8, zorder=3)
    axes.grid(visible=False, axis="y")
    axes.spines["bottom"].set_visible(False)
    tick_names(axes, places.tolist(), names)
    spread = max([abs(value) for value in values], default=1.0) or 1.0
    for place, value, words in zip(places, values, said, strict=True):
        write(axes, max(value, 0.0), float(place), words, points=4.0, color=INK)
    room = 1.03 + 0.0135 * max([len(words) for words in said], default=0)
    axes.set_xlim(min([0.0, *values]) * 1.05, spread * room)
    if all(float(value).is_integer() for value in values):
        whole_ticks(axes.xaxis)


def end_labels(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Writes the names of lines at their right ends, moved apart where they would overlap.

    Args:
        axes: Where; its limits must be final.
        ends: Height, name and colour of each line; names of faint lines are muted.
    """
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    gap = 0.072 * (high - low)
    ordered = sorted(ends)
    places = [height for height, _, _ in ordered]
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + gap)
    overflow = max(0.0, places[-1] - high) if places else 0.0
    for index in range(len(places) - 1, -1, -1):
        ceiling = high if index == len(places) - 1 else places[index + 1] - gap
        places[index] = min(places[index], ceiling) if overflow else places[index]
    for place, (height, name, colour) in zip(places, ordered, strict=True):
        main = colour != FAINT
        axes.plot(
            [1.005, 1.045],
            [height, place],
            transform=axes.get_yaxis_transform(),
            color=colour,
            linewidth=1.6 if main else 0.7,
            clip_on=False,
        )
        write(axes, right + 0.055 * (right - left), place, name, color=INK if main else MUTED)


def heat_colours() -> Colormap:
    """From the card's own colour to deep blue: more is darker, also in grey."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("saerl", [CARD, "#B9D9EC", BLUE, "#06304F"])


def facts(title: str, rows: Sequence[tuple[str, str]], *, note: str = "") -> bytes:
    """A figure of names and values in two columns, read down the left one first.

    Args:
        title: A sentence that says what they describe.
        rows: Names and values; a value longer than its column is cut.
        note: Small print under the title.
    """
    n_lines = (len(rows) + 1) // 2
    height = 0.95 + 0.25 * n_lines
    drawn = card(title, note=note, height=height)
    drawn.axes[0].set_axis_off()
    for index, (name, value) in enumerate(rows):
        left = 0.16 + (0.0 if index < n_lines else WIDTH_INCHES / 2)
        y = 1.0 - (0.82 + 0.25 * (index % n_lines)) / height
        for inches, text, colour in ((left, name, MUTED), (left + 0.98, cut(value, 42), INK)):
            drawn.figure.text(
                inches / WIDTH_INCHES,
                y,
                escape_math(text),
                fontsize=TEXT,
                fontfamily=FONT,
                color=colour,
                va="center",
            )
    return png(drawn)


def median_line(axes: Axes, value: float, said: str) -> None:
    """Marks the median on a histogram."""
    low, high = axes.get_ylim()
    axes.axvline(value, color=INK, linewidth=1.0, linestyle=(0, (3, 2)), zorder=4)
    left, right = axes.get_xlim()
    points = -4.0 if value > left + 0.6 * (right - left) else 4.0
    write(axes, value, low + 0.96 * (high - low), said, points=points, color=INK)


def thinned(frame: pl.DataFrame, by: str, n: int = 1500) -> pl.DataFrame:
    """At most `n` rows, evenly spaced in the order of a column of hashes: always the same sample."""
    return frame.sort(by).gather_every(max(1, -(-frame.height // n)))


def whole_ticks(axis: Axis) -> None:
    """Marks whole numbers only along an axis of counts, however few they are."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 2.5, 5, 10], integer=True))


def thousands(axes: Axes) -> None:
    """Writes the numbers along x as 200k and 1M."""
    from matplotlib.ticker import EngFormatter

    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
