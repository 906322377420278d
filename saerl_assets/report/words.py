"""How the report says numbers and texts: counts, shares, figures, cut and printable strings.

Belongs here: turning one value into the words that figures and the page share. Does not belong here:
sentences about the data (verdicts.py) and the look of them (style.py).
"""

from __future__ import annotations

import unicodedata

import polars as pl


def count(number: float, noun: str = "", plural: str = "") -> str:
    """A whole number with its noun: `count(2000, "prompt")` is '2,000 prompts'.

    Args:
        number: What was counted.
        noun: What it counts, in the singular; without one only the number is said.
        plural: The noun's plural where it is not the noun and an s.
    """
    said = f"{round(number):,}"
    if not noun:
        return said
    return f"{said} {noun if round(number) == 1 else plural or noun + 's'}"


def share(fraction: float) -> str:
    """A fraction as a percentage that never rounds something to nothing: '9%', '0.4%', 'under 0.1%', '0%'."""
    percent = 100.0 * fraction
    if 0.0 < percent < 0.05:
        return "under 0.1%"
    if 99.5 <= percent < 100.0:
        return "over 99%"
    if percent >= 10.0:
        return f"{percent:.0f}%"
    return f"{percent:.1f}".removesuffix(".0") + "%"


LEAST_SHOWN = 1e-5
"""Of the largest value of a column: what is smaller is shown as 0. It only keeps ties apart, or is left by rounding."""


def least_shown(values: pl.Series) -> float:
    """The size below which a value of a column is shown as 0; 0 for a column that has no finite value."""
    finite = values.cast(pl.Float64).drop_nulls().abs()
    largest = finite.filter(finite.is_finite()).max()
    return LEAST_SHOWN * float(largest or 0.0)  # type: ignore[arg-type]


def figure(value: float | None, least: float = 0.0) -> str:
    """A measured value with three significant digits; 'not known' where there is none.

    Args:
        value: The value.
        least: What is smaller is shown as 0.
    """
    if value is None or value != value:  # noqa: PLR0124 - NaN is the only value that differs from itself
        return "not known"
    size = abs(value)
    if size == 0.0 or size < least:
        return "0"
    if size >= 1000.0:
        return f"{value:,.0f}"
    if size < 0.001:
        return f"{value:.1e}"
    return f"{value:.3g}"


def n_bytes(number: int) -> str:
    """A size in decimal units: '98 MB'."""
    size, unit = float(number), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000.0:
            break
        size, unit = size / 1000.0, larger
    return f"{size:.0f} {unit}" if unit == "B" or size >= 10.0 else f"{size:.1f} {unit}"


def short(digest: str | None) -> str:
    """The first twelve characters of a digest, enough to tell two apart by eye."""
    return digest[:12] if digest else "none"


def cut(text: str, limit: int) -> str:
    """A text on one line, cut at a word where possible, with an ellipsis where something was left out.

    Args:
        text: Any text.
        limit: Characters to keep, the ellipsis included.
    """
    line = " ".join(printable(text).split())
    if len(line) <= limit:
        return line
    head = line[: limit - 1]
    at_word = head.rsplit(" ", 1)[0]
    return (at_word if len(at_word) > limit * 2 // 3 else head) + "…"


def printable(text: str) -> str:
    """The text without control and direction-changing characters, which could make it read as another."""
    return "".join(
        character if character in "\n\t" or unicodedata.category(character) not in {"Cc", "Cf", "Cs"} else "�"
        for character in text.replace("\r\n", "\n")
    )


def listed(names: list[str], limit: int = 3) -> str:
    """Names in a sentence: 'algebra, games and 5 more'."""
    if not names:
        return "none"
    if len(names) == 1:
        return names[0]
    if len(names) <= limit:
        return f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{', '.join(names[:limit])} and {len(names) - limit} more"
