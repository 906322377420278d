"""Frames that grow row by row.

Belongs here: packing rows into columns as they come, so that a million of them never exist as Python objects
at once. Does not belong here: what the columns mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import polars as pl

_BLOCK_ROWS = 4_096


class FrameBuilder:
    """A frame that grows by rows, which it packs block by block."""

    def __init__(self, schema: Mapping[str, pl.DataType]) -> None:
        self._schema = schema
        self._rows: list[Sequence[object]] = []
        self._blocks: list[pl.DataFrame] = []

    def add(self, *row: object) -> None:
        """Takes one row, in the order of the schema."""
        self._rows.append(row)
        if len(self._rows) == _BLOCK_ROWS:
            self._pack()

    def frame(self) -> pl.DataFrame:
        """All rows so far."""
        self._pack()
        return pl.concat(self._blocks)

    def _pack(self) -> None:
        columns: Iterable[Sequence[object]] = zip(*self._rows, strict=True) if self._rows else ((),) * len(self._schema)
        series = [
            pl.Series(name, values, dtype=dtype)
            for (name, dtype), values in zip(self._schema.items(), columns, strict=True)
        ]
        self._blocks.append(pl.DataFrame(series))
        self._rows = []
