"""What a page is built from: figures, tables with cells, lists of facts, and code.

Belongs here: the shapes that the template knows. Does not belong here: which of them a section has
(sections.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from saerl_assets.report.style import data_uri


@dataclass(frozen=True)
class Marked:
    """A line of text with one part marked, and a number before it."""

    before: str
    token: str
    after: str
    value: str


@dataclass(frozen=True)
class Cell:
    """One cell: what it says, and what hides behind it.

    `order` sorts it where the text would not; `more` are further texts to unfold; `tag` is a short mark with
    a meaning ('good', 'bad'); `share` between 0 and 1 draws a bar; `lines` stand in place of the text, the first open.
    """

    text: str
    order: float | str | None = None
    more: tuple[str, ...] = ()
    tag: str = ""
    share: float | None = None
    lines: tuple[Marked, ...] = ()


@dataclass(frozen=True)
class Column:
    """One column: its heading, how it is set, and what its heading means."""

    name: str
    style: str = "text"
    """`text`, `long` (clamped to a few lines), `words`, `number`, `code` or `place` (code on one line)."""
    hint: str = ""
    facet: bool = False
    """Whether the page offers its values to filter by."""


@dataclass(frozen=True)
class Table:
    """A table that a reader can sort, and filter where it is long."""

    id: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    filterable: bool = False
    note: str = ""
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Picture:
    """A figure with the words for those who cannot see it."""

    source: str
    alt: str
    width: int
    height: int
    kind: ClassVar[str] = "picture"


@dataclass(frozen=True)
class Point:
    """One prompt in a picture that can be pointed at."""

    x: float
    """0 to 1 from left to right."""
    y: float
    """0 to 1 from top to bottom."""
    id: str
    """The beginning of the prompt's id, as the table of prompts shows it."""
    text: str
    """The prompt's text; nothing where the table of prompts has it."""
    group: int | None = None
    """What a click filters the prompts by."""
    shade: int = 0
    """Its place in the page's colours."""
    said: str = ""
    """What is said of it above its text; by default its group."""
    scales: tuple[float | None, ...] = ()
    """Values between 0 and 1 that it can be coloured by."""


@dataclass(frozen=True)
class Scatter:
    """Points to point at: pointing reads one, a click filters the prompts by its group."""

    id: str
    caption: str
    points: tuple[Point, ...]
    numbers: tuple[tuple[float, float, str], ...] = ()
    """Words on it, with their places."""
    scale_names: tuple[str, ...] = ()
    group_name: str = ""
    x_label: str = ""
    y_label: str = ""
    x_ticks: tuple[tuple[float, str], ...] = ()
    y_ticks: tuple[tuple[float, str], ...] = ()
    note: str = ""
    height: float = 0.5
    """As a part of its width."""
    kind: ClassVar[str] = "scatter"


@dataclass(frozen=True)
class Step:
    """One batch of an order; heights are between 0 and 1."""

    number: int
    low: float
    middle: float
    high: float
    said: str
    prompts: str = ""
    """The beginnings of its prompts' ids, as the table of prompts shows them, with spaces between."""


@dataclass(frozen=True)
class Strip:
    """Batches from left to right: pointing reads one, a click shows its prompts."""

    id: str
    caption: str
    steps: tuple[Step, ...]
    middles: tuple[float, ...] = ()
    """The heights of a control's batches."""
    note: str = ""
    kind: ClassVar[str] = "strip"


@dataclass(frozen=True)
class FactList:
    """Names and values."""

    caption: str
    facts: tuple[tuple[str, str], ...]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Code:
    """Text to copy or to read as it is, unfolded or not."""

    caption: str
    text: str
    is_open: bool = True
    kind: ClassVar[str] = "code"


Block = Table | Picture | FactList | Code | Scatter | Strip


def picture(png: bytes, alt: str) -> Picture:
    """A figure to show at its natural size, which a PNG states in its bytes 16 to 23."""
    width, height = (int.from_bytes(png[start : start + 4]) for start in (16, 20))
    return Picture(data_uri(png), alt, width, height)


def cells(*texts: str | Cell) -> tuple[Cell, ...]:
    """A row of cells; a bare text is a cell that says it."""
    return tuple(text if isinstance(text, Cell) else Cell(text) for text in texts)


def number(value: float | None, said: str = "", *, share: float | None = None) -> Cell:
    """A cell that sorts by its value.

    Args:
        value: What it sorts by; None sorts below everything.
        said: How it is said.
        share: Between 0 and 1, drawn as a bar.
    """
    # nine digits: sums in another order of rows differ in the last ones, and the page must not
    return Cell(said, order=float("-inf") if value is None else float(f"{value:.9g}"), share=share)


def columns(*names: str | Column) -> tuple[Column, ...]:
    """Columns of a table; a bare name is a column of short text."""
    return tuple(name if isinstance(name, Column) else Column(name) for name in names)


def rows(many: Sequence[tuple[Cell, ...]]) -> tuple[tuple[Cell, ...], ...]:
    """Rows of a table."""
    return tuple(many)
