"""The warehouse: the tables of a home, in a DuckDB file or a lake.

Belongs here: writing a frame or shards to a table, reading rows back, doing a transaction again that others came in the
way of. Does not belong here: computing anything while a connection is open; whoever reads takes the rows and lets go.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TypeVar

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from saerl_assets.domain.errors import SaerlError
from saerl_assets.storage.database import Database, Notify
from saerl_assets.storage.duckdb_file import DuckdbFile
from saerl_assets.storage.home import Home
from saerl_assets.storage.lake import Lake
from saerl_assets.storage.prompt_order import in_prompt_order
from saerl_assets.storage.schema import Table, tables

ATTEMPTS = 12
"""How often a transaction is tried that others come in the way of; with the pauses that is a minute, about."""
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0

_TRIED_AGAIN = frozenset({"lake_busy", "lake_unreachable"})
_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


class Warehouse:
    """The tables of one home."""

    def __init__(self, home: Home, notify: Notify = _log.warning) -> None:
        self.home = home
        self.database: Database = (
            Lake(home.lake) if home.lake is not None else DuckdbFile(home.warehouse, home.warehouse_lock)
        )
        self.n_retries = 0
        """Transactions that were done again because others came in the way."""
        self._notify = notify

    def exists(self) -> bool:
        """Whether anything was ever stored in it."""
        return self.database.exists()

    @contextmanager
    def reading(self, purpose: str = "reading") -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-only connection, together with other readers.

        Raises:
            SaerlError: `warehouse_missing` before anything was registered, `warehouse_unreadable`, those of a lake.
        """
        with self.database.reading(purpose, self._notify) as connection:
            yield connection

    @contextmanager
    def writing(self, purpose: str, turn: str = "versions") -> Iterator[duckdb.DuckDBPyConnection]:
        """A transaction: committed when the block ends, undone when it fails. It is tried once; see `transact`."""
        with self.database.writing(purpose, turn, self._notify) as connection:
            yield connection

    def transact(
        self, purpose: str, work: Callable[[duckdb.DuckDBPyConnection], _Result], turn: str = "versions"
    ) -> _Result:
        """Does `work` in a transaction, and does it again where others came in the way.

        Args:
            purpose: What it is for, shown to those who wait.
            work: What to do with the connection. It may be called several times, each time on the state of then; also
                after an attempt of which nobody knows whether it was committed, so it must not count on being the
                first.
            turn: What only one may write at a time: the table.

        Raises:
            SaerlError: `lake_busy` or `lake_unreachable` after `ATTEMPTS`, or what else failed.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self.writing(purpose, turn) as connection:
                    return work(connection)
            except SaerlError as error:
                if error.code not in _TRIED_AGAIN or attempt == ATTEMPTS:
                    raise
                pause = random.uniform(0, min(FIRST_PAUSE_SECONDS * 2**attempt, LONGEST_PAUSE_SECONDS))  # noqa: S311
                self.n_retries += 1
                said = error.problem.splitlines()[-1]
                self._notify(f"{purpose}: attempt {attempt} of {ATTEMPTS} failed, again in {pause:.1f} s: {said}")
            time.sleep(pause)
        raise AssertionError

    def store(
        self,
        name: str,
        frame: pl.DataFrame,
        dataset_version: str | None = None,
        *,
        then: Callable[[duckdb.DuckDBPyConnection], None] | None = None,
    ) -> int:
        """Writes a frame to its table in one transaction and returns how many rows that added.

        A table that replaces is left with exactly these rows for the version, or for the manifests among them. A table
        that only grows takes the rows whose key it does not have. `then` runs in the same transaction.
        """
        table = tables()[name]
        rows = table.conform(frame, dataset_version)

        def replace(connection: duckdb.DuckDBPyConnection) -> int:
            connection.register("incoming", rows.to_arrow())
            if table.replaces == "dataset_version" and dataset_version is not None:
                connection.execute(f"{_delete(table)} = ?", [dataset_version])
            elif table.replaces and table.replaces != "dataset_version":
                manifests = f'SELECT "{table.replaces}" FROM incoming'  # noqa: S608 - names from our own DDL
                connection.execute(f"{_delete(table)} IN ({manifests})")
            added = _insert(connection, table)
            if then is not None:
                then(connection)
            return added

        return self.transact(f"{dataset_version or ''} {name}".strip(), replace, turn=name)

    def store_shards(self, name: str, files: Sequence[Path], purpose: str) -> int:
        """Adds the rows of Parquet files whose key the table does not have yet; returns their number.

        Rows of the texts that a reader reads are laid down in the order of prompts, in which they will be read; see
        `prompt_order`. Every `rows_in_transaction` of them are a transaction, since what is not committed is held in
        memory; where a later one fails, the rows of those before stay, each of them complete.
        """
        if not files:
            return 0
        table, added = tables()[name], 0
        laid_down: AbstractContextManager[Iterable[pa.Table]] = nullcontext(map(pq.read_table, files))
        if "text_id" in table.key:
            laid_down = in_prompt_order(files, self.rows("prompts", ["prompt_id", "text_id"]))
        with laid_down as parts:
            for rows in self._gathered(parts):
                added += self.transact(purpose, partial(_insert_all, table=table, parts=rows), turn=name)
        return added

    def _gathered(self, parts: Iterable[pa.Table]) -> Iterator[Iterable[pa.Table]]:
        """The parts of one transaction after another.

        A file takes them as they come. A lake may refuse a transaction, so there they are kept until it is done.
        """
        remaining = iter(parts)
        for first in remaining:
            taken = _until(self.database.rows_in_transaction, first, remaining)
            yield list(taken) if self.home.lake is not None else taken

    def rows(self, name: str, columns: Sequence[str] | None = None, **equal: str | None) -> pl.DataFrame:
        """The rows of a table or view in which each named column equals the given value, ordered by the table's key."""
        with self.reading(name) as connection:
            relation = connection.table(name)
            for column, value in equal.items():
                relation = relation.filter(duckdb.ColumnExpression(column) == duckdb.ConstantExpression(value))
            if columns is not None:
                relation = relation.select(*(duckdb.ColumnExpression(column) for column in columns))
            frame = relation.pl()
        key = [column for column in tables()[name].key if column in frame.columns] if name in tables() else []
        return frame.sort(key) if key else frame

    def matching(
        self, name: str, wanted: pl.DataFrame, equal: Mapping[str, str], columns: Sequence[str]
    ) -> pl.DataFrame:
        """Some columns of a table's rows that agree with a row of `wanted` in its columns, and with `equal`."""
        shown = ", ".join(f't."{column}"' for column in columns)
        keys = ", ".join(f'"{column}"' for column in wanted.columns)
        conditions = " AND ".join(f't."{column}" = ?' for column in equal) or "true"
        statement = f'SELECT {shown} FROM "{name}" t JOIN wanted USING ({keys}) WHERE {conditions}'  # noqa: S608
        with self.reading(name) as connection:
            connection.register("wanted", wanted.to_arrow())
            return connection.execute(statement, list(equal.values())).pl()

    def head(self, name: str, n_rows: int) -> pl.DataFrame:
        """Some rows of a table, without reading the others."""
        with self.reading(name) as connection:
            return connection.table(name).limit(n_rows).pl()

    def query(self, statement: str, parameters: Sequence[object] = ()) -> pl.DataFrame:
        """The result of one read-only statement.

        Raises:
            SaerlError: `sql_failed` with DuckDB's own message.
        """
        with self.database.confined("a query", self._notify) as connection:
            try:
                if len(connection.extract_statements(statement)) != 1:
                    raise duckdb.ParserException("Give one statement.")
                found = connection.execute(statement, list(parameters))
                return found.pl() if found.description else pl.DataFrame()
            except duckdb.Error as error:
                raise SaerlError(
                    "sql_failed", f"{error}", remedy="See the tables with: saerl sql 'SHOW TABLES'"
                ) from error

    def held_by_another_program(self) -> str:
        """What DuckDB says if a program that knows nothing of our lock, such as its shell, has the file open."""
        return self.database.held_by_another_program()


def _until(n_rows: int, first: pa.Table, remaining: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Tables from an iterator until they have so many rows together."""
    yield first
    n_taken = first.num_rows
    while n_taken < n_rows and (more := next(remaining, None)) is not None:
        yield more
        n_taken += more.num_rows


def _insert_all(connection: duckdb.DuckDBPyConnection, table: Table, parts: Iterable[pa.Table]) -> int:
    return sum(_insert_new(connection, table, rows) for rows in parts)


def _insert(connection: duckdb.DuckDBPyConnection, table: Table) -> int:
    """Adds the rows of the view `incoming`. Names come from this package's own DDL, never from a user."""
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    statement = f'INSERT INTO "{table.name}" ({columns}) SELECT {columns} FROM incoming'  # noqa: S608
    if not table.replaces:
        key = ", ".join(f'"{column}"' for column in table.key)
        first = f"SELECT {columns} FROM incoming QUALIFY row_number() OVER (PARTITION BY {key}) = 1"  # noqa: S608
        statement = (
            f'INSERT INTO "{table.name}" ({columns}) SELECT {columns} FROM ({first}) '  # noqa: S608
            f'ANTI JOIN "{table.name}" USING ({key})'
        )
    added = connection.execute(statement).fetchone()
    return int(added[0]) if added else 0


def _insert_new(connection: duckdb.DuckDBPyConnection, table: Table, rows: pa.Table) -> int:
    """Adds the rows whose key is new, in their order.

    Keys are compared apart from the rows: a join of whole rows would hold their lists, and lose their order.
    """
    keys = rows.select(table.key)
    connection.register("incoming", keys)
    key = ", ".join(f'"{column}"' for column in table.key)
    known = connection.execute(f'SELECT {key} FROM "{table.name}" SEMI JOIN incoming USING ({key})').pl()  # noqa: S608
    new = (
        pl.DataFrame(keys)
        .with_row_index("row")
        .join(known, on=table.key, how="anti", maintain_order="left")
        .unique(table.key, keep="first", maintain_order=True)["row"]
    )
    connection.register("incoming", rows if len(new) == rows.num_rows else rows.take(new.to_arrow()))
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    connection.execute(f'INSERT INTO "{table.name}" ({columns}) SELECT {columns} FROM incoming')  # noqa: S608
    connection.unregister("incoming")
    return len(new)


def _delete(table: Table) -> str:
    return f'DELETE FROM "{table.name}" WHERE "{table.replaces}"'  # noqa: S608 - names from our own DDL
