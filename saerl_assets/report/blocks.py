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
class Cell:
    """One cell: what it says, and what hides behind it.

    `order` sorts it where the text would not; `more` are further texts to unfold; `tag` is a short mark with
    a meaning ('good', 'bad'); `share` between 0 and 1 draws a bar.
    """

    text: str
    order: float | str | None = None
    more: tuple[str, ...] = ()
    tag: str = ""
    share: float | None = None


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


Block = Table | Picture | FactList | Code


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
