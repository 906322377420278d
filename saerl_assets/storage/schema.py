"""The tables as `sql/tables/` defines them: grain, key, columns, and what a frame must look like to be stored.

Belongs here: reading the DDL files and holding frames against them. Does not belong here: connections.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import polars as pl

from saerl_assets.domain.errors import SaerlError
from saerl_assets.storage.package_data import sql_folder

_TYPES: dict[str, pl.DataType] = {
    "VARCHAR": pl.String(),
    "BOOLEAN": pl.Boolean(),
    "USMALLINT": pl.UInt16(),
    "UINTEGER": pl.UInt32(),
    "UBIGINT": pl.UInt64(),
    "FLOAT": pl.Float32(),
    "DOUBLE": pl.Float64(),
    "TIMESTAMP": pl.Datetime("us"),
}
_COLUMN = re.compile(r"^  (\w+) (\w+(?:\[\])?)( NOT NULL)?,?\s*(?:--\s*(.*))?$")


@dataclass(frozen=True)
class Column:
    """One column: its DuckDB type, whether it may be null, and its comment."""

    name: str
    type: str
    nullable: bool
    comment: str

    @property
    def dtype(self) -> pl.DataType:
        """The polars type."""
        inner = _TYPES[self.type.removesuffix("[]")]
        return pl.List(inner) if self.type.endswith("[]") else inner


@dataclass(frozen=True)
class Table:
    """One table as its file in `sql/tables/` defines it.

    `replaces` names the column whose values a write replaces; empty for a table that only grows, to which a write adds
    the rows whose key it does not have yet.
    """

    name: str
    grain: str
    key: tuple[str, ...]
    replaces: str
    columns: tuple[Column, ...]
    ddl: str

    @property
    def is_versioned(self) -> bool:
        """Whether its rows belong to one dataset version."""
        return any(column.name == "dataset_version" for column in self.columns)

    def conform(self, frame: pl.DataFrame, dataset_version: str | None) -> pl.DataFrame:
        """The frame with the table's columns in the table's order and types, `dataset_version` filled in.

        Raises:
            SaerlError: `invalid_rows` for a missing or unknown column, a value that does not fit its type, a null where
                none may be, or two rows with the same key. Nothing has been written then.
        """
        if self.is_versioned and "dataset_version" not in frame.columns:
            frame = frame.with_columns(dataset_version=pl.lit(dataset_version, pl.String()))
        names = {column.name for column in self.columns}
        for problem, found in (
            ("lack the columns", names - set(frame.columns)),
            ("have columns that the table does not know", set(frame.columns) - names),
        ):
            if found:
                raise self._invalid(f"The rows {problem} {sorted(found)}.")
        try:
            frame = frame.select(pl.col(column.name).cast(column.dtype) for column in self.columns)
        except pl.exceptions.PolarsError as error:
            raise self._invalid(f"A value does not fit its column: {error}.") from error
        for column in self.columns:
            if not column.nullable and frame[column.name].null_count():
                raise self._invalid(f"{frame[column.name].null_count()} rows have no {column.name}.")
        if frame.select(self.key).is_duplicated().any():
            twice = frame.filter(frame.select(self.key).is_duplicated()).select(self.key).row(0)
            raise self._invalid(f"Two rows have the same key {dict(zip(self.key, twice, strict=True))}.")
        return frame

    def _invalid(self, problem: str) -> SaerlError:
        return SaerlError(
            "invalid_rows",
            problem,
            where=f"table {self.name}",
            remedy="This is a defect of the asset that made them; the rows of before are untouched.",
        )


@cache
def tables() -> dict[str, Table]:
    """Every table, by name."""
    files = sorted((sql_folder() / "tables").glob("*.sql"))
    return {file.stem: _parse(file.stem, file.read_text()) for file in files}


@cache
def views() -> dict[str, str]:
    """The statement of every view, by name."""
    return {file.stem: file.read_text() for file in sorted((sql_folder() / "views").glob("*.sql"))}


def _parse(name: str, ddl: str) -> Table:
    head = dict(re.findall(r"^-- (key|write): (.+)$", ddl, flags=re.MULTILINE))
    columns = tuple(
        Column(match[1], match[2], not match[3], (match[4] or "").strip())
        for line in ddl.splitlines()
        if (match := _COLUMN.match(line))
    )
    return Table(
        name=name,
        grain=ddl.splitlines()[0].removeprefix("-- "),
        key=tuple(head["key"].split(", ")),
        replaces=head["write"].removeprefix("replace ") if head["write"] != "append" else "",
        columns=columns,
        ddl=ddl,
    )
