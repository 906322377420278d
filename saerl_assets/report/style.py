"""How every figure looks: one palette, one card, one way of writing it as a PNG.

Belongs here: colours, type sizes, the card that carries title and axes, how words get onto it. Does not
belong here: marks that stand for data (marks.py), and what any one figure shows. Figures are looked at in
Dagster's metadata dialog, which shows them at their natural size on white or near black, and in the HTML
page: so a figure is a card with its own light background, 800 pixels wide. matplotlib is used through its
object interface only; pyplot's global state is never touched.
"""

from __future__ import annotations

import base64
import io
import textwrap
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.report.words import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

# Okabe and Ito, 'Color Universal Design' (2008): told apart by every common kind of colour vision.
BLUE, VERMILION, GREEN, AMBER, PINK, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
SERIES = (BLUE, VERMILION, GREEN, AMBER, PINK, SKY)
"""Colours in the order in which a figure uses them."""
INK, MUTED, FAINT, GRID = "#1D2733", "#5B6776", "#A7B0BB", "#E4E8EC"
CARD, EDGE = "#FCFCFC", "#D5DAE0"

FONT = "DejaVu Sans"  # ships inside matplotlib, so that every machine draws the same bytes
WIDTH_INCHES, DPI = 8.0, 100
TEXT, TITLE = 9.0, 11.5


@dataclass(frozen=True)
class Card:
    """A figure with its title, and its empty axes from left to right, row by row."""

    figure: Figure
    axes: tuple[Axes, ...]


def card(
    title: str,
    *,
    key: Sequence[tuple[str, str]] = (),
    note: str = "",
    widths: Sequence[float] = (1.0,),
    height: float = 3.6,
    share_y: bool = False,
    n_rows: int = 1,
) -> Card:
    """An empty figure in the house style.

    Args:
        title: A sentence that says what one sees; wrapped after two lines' worth of words.
        key: Names of the series with their colours, written under the title.
        note: What else a reader must know, after the key.
        widths: Relative widths of the axes, one for each.
        height: Inches.
        share_y: Whether all axes have one y scale.
        n_rows: Rows of such axes; they come row by row.
    """
    from matplotlib.figure import Figure

    lines = textwrap.wrap(printable(title), width=78)[:2] or [""]
    header = 0.26 + 0.21 * len(lines) + (0.21 if key or note else 0.0)
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DPI, layout="constrained")
    _draw_background(figure)
    figure.text(
        0.14 / WIDTH_INCHES,
        1.0 - 0.15 / height,
        escape_math("\n".join(lines)),
        fontsize=TITLE,
        fontweight="bold",
        fontfamily=FONT,
        color=INK,
        va="top",
        linespacing=1.25,
    )
    _draw_key(figure, key, note, y=1.0 - (0.19 + 0.21 * len(lines)) / height)
    engine = figure.get_layout_engine()
    assert engine is not None  # noqa: S101 - asked for three lines above
    margin = 0.12
    engine.set(  # type: ignore[call-arg]  # matplotlib's stubs leave the engine's own arguments out
        rect=(
            margin / WIDTH_INCHES,
            margin / height,
            1 - 2 * margin / WIDTH_INCHES,
            1 - (header + margin) / height,
        ),
        wspace=0.04,
    )
    grid = figure.add_gridspec(n_rows, len(widths), width_ratios=list(widths))
    axes: list[Axes] = []
    for cell in range(n_rows * len(widths)):
        row, column = divmod(cell, len(widths))
        axes.append(figure.add_subplot(grid[row, column], sharey=axes[0] if share_y and axes else None))
        _style_axes(axes[-1])
        if share_y and column:
            axes[-1].tick_params(labelleft=False)
    return Card(figure, tuple(axes))


def png(card: Card) -> bytes:
    """The card as PNG bytes: the same bytes for the same card, without a date or a program's name in them.

    A palette of 255 colours, which nobody can tell from the original, makes it a third as large; the 256th is
    the transparent ground outside the card.
    """
    from PIL import Image

    drawn = io.BytesIO()
    card.figure.savefig(drawn, format="png", dpi=DPI, transparent=True, metadata={"Software": None})
    drawn.seek(0)
    pixels = Image.open(drawn).convert("RGBA")
    opacity = pixels.getchannel("A")
    flat = Image.new("RGB", pixels.size, CARD)
    flat.paste(pixels, mask=opacity)
    reduced = flat.quantize(255, method=Image.Quantize.MEDIANCUT, kmeans=1)
    palette = reduced.getpalette() or []
    reduced.putpalette([*palette, *[0] * (768 - len(palette))])
    reduced.paste(255, mask=opacity.point(lambda alpha: 255 if alpha < 128 else 0))
    out = io.BytesIO()
    reduced.save(out, format="PNG", optimize=True, transparency=255)
    return out.getvalue()


def message(title: str, explanation: str) -> bytes:
    """A figure in words, for when there is nothing to draw.

    Args:
        title: What is not there.
        explanation: Why, and what to do about it.
    """
    lines = textwrap.wrap(printable(explanation), width=96)[:6]
    empty = card(title, height=0.75 + 0.2 * max(len(lines), 1))
    empty.axes[0].set_axis_off()
    empty.figure.text(
        0.14 / WIDTH_INCHES,
        1.0 - 0.47 / empty.figure.get_figheight(),
        escape_math("\n".join(lines)),
        fontsize=TEXT + 0.5,
        fontfamily=FONT,
        color=MUTED,
        va="top",
        linespacing=1.35,
    )
    return png(empty)


def as_markdown(png: bytes, alt: str) -> str:
    """A figure as markdown that needs no other file; Dagster has no metadata type for images.

    Args:
        png: The PNG's bytes.
        alt: What the figure shows, for those who cannot see it.
    """
    said = " ".join(printable(alt).split()).replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
    return f"![{said}]({data_uri(png)})"


def data_uri(png: bytes) -> str:
    """A PNG as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def finite(frame: pl.DataFrame, column: str) -> NDArray[np.float64]:
    """The finite numbers of a column, in row order: what of it can be drawn."""
    values = frame[column].cast(pl.Float64, strict=False).drop_nulls().to_numpy().astype(np.float64)
    return np.compress(np.isfinite(values), values)


def largest(frame: pl.DataFrame, column: str) -> float:
    """The largest finite number of a column; 0 where there is none."""
    return float(finite(frame, column).max(initial=0.0))


def escape_math(text: str) -> str:
    """A text for matplotlib to write as it is: no formula between dollars, a box for a letter it lacks."""
    known = _known_characters()
    return "".join(
        character if character in "\n " or ord(character) in known else "□" for character in text.replace("\t", " ")
    ).replace("$", r"\$")


def write(axes: Axes, x: float, y: float, text: str, *, points: float = 0.0, **options: object) -> None:
    """Writes small text at a place in data coordinates.

    Args:
        axes: Where.
        x: Place along x.
        y: Place along y, the middle of the text.
        text: What.
        points: How far to the right of the place, in points; to the left where negative.
        options: Passed on to matplotlib's `Axes.annotate`.
    """
    merged: dict[str, object] = {
        "fontsize": TEXT - 0.5,
        "fontfamily": FONT,
        "color": MUTED,
        "va": "center",
        "ha": "left" if points >= 0 else "right",
        "annotation_clip": False,
    } | options
    axes.annotate(
        escape_math(text),
        (x, y),
        xytext=(points, 0.0),
        textcoords="offset points",
        **merged,  # type: ignore[arg-type]
    )


def label(axes: Axes, *, x: str = "", y: str = "") -> None:
    """Names the axes, with their units."""
    axes.set_xlabel(escape_math(x), fontsize=TEXT, fontfamily=FONT, color=MUTED, labelpad=4)
    axes.set_ylabel(escape_math(y), fontsize=TEXT, fontfamily=FONT, color=MUTED, labelpad=5)


def plain_numbers(axis: Axis) -> None:
    """Writes the numbers along an axis as 1,000 or 0.25, all with as many decimals as their step needs."""
    from matplotlib.ticker import FuncFormatter

    def said(value: float, _position: int | None) -> str:
        if axis.get_scale() != "linear":
            return f"{value:,g}"
        steps = np.abs(np.diff(axis.get_majorticklocs()))
        step = steps[steps > 0].min(initial=np.inf)
        step = step if np.isfinite(step) else 1.0
        decimals = next((n for n in range(6) if abs(step * 10**n - round(step * 10**n)) < 1e-6 * 10**n * step), 6)
        return f"{value:,.{decimals}f}"

    axis.set_major_formatter(FuncFormatter(said))


def tick_names(axes: Axes, places: Sequence[float], names: Sequence[str], *, axis: str = "y") -> None:
    """Writes names instead of numbers along an axis."""
    target = axes.yaxis if axis == "y" else axes.xaxis
    target.set_ticks(list(places), labels=[escape_math(name) for name in names])
    axes.tick_params(axis="y" if axis == "y" else "x", length=0, labelcolor=INK)


def _draw_background(figure: Figure) -> None:
    """A card with round corners on a transparent ground."""
    from matplotlib.patches import FancyBboxPatch

    figure.patch.set_alpha(0.0)
    width, height = figure.get_size_inches()
    figure.add_artist(
        FancyBboxPatch(
            (0.06, 0.06),
            width - 0.12,
            height - 0.12,
            boxstyle="round,pad=0,rounding_size=0.08",
            transform=figure.dpi_scale_trans,
            facecolor=CARD,
            edgecolor=EDGE,
            linewidth=0.8,
            zorder=-10,
        )
    )


def _draw_key(figure: Figure, key: Sequence[tuple[str, str]], note: str, *, y: float) -> None:
    """One line of names behind squares in their colours, and the note after them."""
    from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea

    size = {"fontsize": TEXT, "fontfamily": FONT}

    def words(text: str, colour: str) -> Artist:
        return TextArea(escape_math(printable(text)), textprops=size | {"color": colour})

    parts: list[Artist] = [
        HPacker(children=[words("■", colour), words(name, INK)], pad=0, sep=4, align="baseline") for name, colour in key
    ]
    if note:
        parts.append(words(note, MUTED))
    if not parts:
        return
    line = HPacker(children=parts, pad=0, sep=12, align="baseline")
    box = AnchoredOffsetbox(
        "upper left",
        child=line,
        frameon=False,
        pad=0,
        borderpad=0,
        bbox_to_anchor=(0.14 / WIDTH_INCHES, y),
        bbox_transform=figure.transFigure,
    )
    box.set_in_layout(False)
    figure.add_artist(box)


def _style_axes(axes: Axes) -> None:
    axes.set_facecolor("none")
    plain_numbers(axes.xaxis)
    plain_numbers(axes.yaxis)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(labelsize=TEXT - 0.5, labelfontfamily=FONT, labelcolor=MUTED, color=FAINT, length=3, width=0.8)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


@cache
def _known_characters() -> frozenset[int]:
    """Code points that the font can draw; matplotlib warns about others."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties(family=FONT))).get_charmap())
