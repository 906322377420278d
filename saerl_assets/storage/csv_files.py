"""CSV files row by row, with typed columns.

Belongs here: what CSV leaves open: which columns are numbers, where a row starts, what a broken one is. Does
not belong
here: other formats (source_files).
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.fields import MAX_RAW_CHARACTERS, SourceRow

Converter = Callable[[str], object]

_MAX_CELL_CHARACTERS = min(sys.maxsize, 2**31 - 1)


def read_csv(path: Path) -> Iterator[SourceRow]:
    """Comma-separated values with a header. An empty cell is null, an empty line no row.

    A column becomes numbers or truth values only if every value in it is written as JSON writes it, so that
    no notation gets lost: with 007 or 1.50 in it, it stays text. That takes a pass over the file before the
    first row.

    Raises:
        SaerlError: `source_broken` for a header with a name twice, or a quote that is never closed.
    """
    converters = _converters(path)
    with _open(path) as file:
        reader = csv.reader(file, strict=True)
        header = _header(path, reader)
        for position, (line, cells, problem) in enumerate(_rows(path, reader, header)):
            if problem:
                yield SourceRow(position, line, None, problem, ",".join(cells)[:MAX_RAW_CHARACTERS])
            else:
                values = (convert(cell) if cell else None for convert, cell in zip(converters, cells, strict=True))
                yield SourceRow(position, line, dict(zip(header, values, strict=True)))


def _open(path: Path) -> TextIO:
    """Opens for the csv module. Bytes that are not UTF-8 become lone surrogates, which `_problem` finds."""
    csv.field_size_limit(_MAX_CELL_CHARACTERS)  # the default refuses cells over 128 KiB
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def _header(path: Path, reader: Any) -> list[str]:  # noqa: ANN401 - the csv module names no type of readers
    try:
        cells: list[str] = next(reader, [])
    except csv.Error as error:
        remedy = "Name the columns in the first line."
        raise SaerlError(
            "source_broken", f"The header is not CSV: {error}.", where=f"{path}:1", remedy=remedy
        ) from error
    names = [cell.strip() or f"column_{place}" for place, cell in enumerate(cells)]
    twice = sorted({name for name in names if names.count(name) > 1})
    problem = ""
    if not names:
        problem = "There is no header."
    elif any(map(_is_undecoded, names)):
        problem = "The header is not UTF-8."
    elif twice:
        problem = f"The header names {', '.join(twice)} twice."
    if problem:
        remedy = "Give every column a name of its own in the first line, and save the file as UTF-8."
        raise SaerlError("source_broken", problem, where=f"{path}:1", remedy=remedy)
    return names


def _rows(
    path: Path,
    reader: Any,  # noqa: ANN401 - the csv module names no type of readers
    header: list[str],
) -> Iterator[tuple[int, list[str], tuple[str, str] | None]]:
    """First line, cells and problem of every row after the header. A row can take several lines."""
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                problem = "A quote that opens in this row is never closed, and swallows all rows after it."
                remedy = "Close the quote; a quote within a quoted cell is written twice."
                raise SaerlError("source_broken", problem, where=f"{path}:{line}", remedy=remedy) from error
            yield line, [], ("broken_csv", f"Line {line} is not CSV: {error}. Write a quote in a cell twice.")
            continue
        if cells:
            yield line, cells, _problem(cells, header, line)


def _problem(cells: list[str], header: list[str], line: int) -> tuple[str, str] | None:
    if len(cells) != len(header):
        counts = f"{len(cells)} cells where the header has {len(header)}"
        return "broken_csv", f"Line {line} has {counts}. Put quotes around cells that hold commas."
    for name, cell in zip(header, cells, strict=True):
        if _is_undecoded(cell):
            return "not_utf8", f"The cell {name} of line {line} is not UTF-8. Save the file as UTF-8."
    return None


def _is_undecoded(cell: str) -> bool:
    """Whether a cell holds bytes that are not UTF-8, as `surrogateescape` shows them."""
    return not cell.isascii() and any("\udc80" <= character <= "\udcff" for character in cell)


def _converters(path: Path) -> list[Converter]:
    """What each column's text becomes, judged by all of its cells."""
    with _open(path) as file:
        reader = csv.reader(file, strict=True)
        header = _header(path, reader)
        candidates: list[list[Converter]] = [[_as_number, _as_truth] for _ in header]
        is_filled = [False] * len(header)
        undecided = list(range(len(header)))
        for _, cells, problem in _rows(path, reader, header):
            if problem:
                continue
            for column in undecided:
                if cells[column]:
                    is_filled[column] = True
                    candidates[column] = [kind for kind in candidates[column] if kind(cells[column]) is not None]
            if any(not candidates[column] for column in undecided):
                undecided = [column for column in undecided if candidates[column]]
    return [kinds[0] if kinds and filled else str for kinds, filled in zip(candidates, is_filled, strict=True)]


def _as_number(text: str) -> int | float | None:
    """The number that JSON writes as this text; none for any other notation."""
    kinds: tuple[type[int], type[float]] = (int, float)
    for kind in kinds:
        try:
            number = kind(text)
        except ValueError:
            continue
        if repr(number) == text and math.isfinite(number):
            return number
    return None


def _as_truth(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text.lower())
