"""The DuckDB warehouse: short transactions under a file lock.

Belongs here: connections, writing a frame or shards to a table, reading rows back. Does not belong here: computing
anything while a connection is open; whoever reads takes the rows and lets go.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from saerl_assets.domain.errors import SaerlError
from saerl_assets.storage.home import Home
from saerl_assets.storage.locks import LONGEST_PAUSE_SECONDS, NOTICE_EVERY_SECONDS, locked
from saerl_assets.storage.migrations import migrate
from saerl_assets.storage.prompt_order import in_prompt_order
from saerl_assets.storage.schema import Table, tables

ROWS_IN_GROUP = 20_480
"""Rows that DuckDB holds in memory until it writes them to the file; its own 122,880 take 4 GB where rows are features,
and go through the write-ahead log as well."""

ROWS_IN_TRANSACTION = 200_000
"""Rows of shards that are committed together: of 700 active features each, they take some 3 GB until then."""

_log = logging.getLogger(__name__)


class Warehouse:
    """The tables of one home."""

    def __init__(self, home: Home, notify: Callable[[str], None] = _log.warning) -> None:
        self.home = home
        self._notify = notify
        self._is_migrated = False

    @contextmanager
    def reading(self, purpose: str = "reading") -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-only connection, together with other readers.

        Raises:
            SaerlError: `warehouse_missing` before anything was registered, `warehouse_unreadable`.
        """
        if not self.home.warehouse.exists():
            raise SaerlError(
                "warehouse_missing",
                "There is no warehouse yet.",
                where=str(self.home.warehouse),
                remedy="Register a version first: saerl register SPEC.toml",
            )
        with locked(self.home.warehouse_lock, exclusive=False, purpose=purpose, notify=self._notify):
            connection = self._connect(read_only=True)
            try:
                yield connection
            except duckdb.Error as error:
                raise _explain(error, self.home.warehouse) from error
            finally:
                connection.close()

    @contextmanager
    def writing(self, purpose: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """A transaction, alone: committed when the block ends, undone when it fails."""
        with locked(self.home.warehouse_lock, exclusive=True, purpose=purpose, notify=self._notify):
            connection = self._connect(read_only=False)
            try:
                if not self._is_migrated:
                    migrate(connection)
                    self._is_migrated = True
                connection.begin()
                yield connection
                connection.commit()
            except duckdb.Error as error:
                raise _explain(error, self.home.warehouse) from error
            finally:
                connection.close()  # an open transaction is rolled back

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
        with self.writing(f"{dataset_version or ''} {name}".strip()) as connection:
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

    def store_shards(self, name: str, files: Sequence[Path], purpose: str) -> int:
        """Adds the rows of Parquet files whose key the table does not have yet; returns their number.

        Rows of the texts that a reader reads are laid down in the order of prompts, in which they will be read; see
        `prompt_order`. Every `ROWS_IN_TRANSACTION` rows are a transaction, since DuckDB holds what is not committed in
        memory; where a later one fails, the rows of those before stay, each of them complete.
        """
        if not files:
            return 0
        table, added = tables()[name], 0
        laid_down: AbstractContextManager[Iterable[pa.Table]] = nullcontext(map(pq.read_table, files))
        if "text_id" in table.key:
            laid_down = in_prompt_order(files, self.rows("prompts", ["prompt_id", "text_id"]))
        with laid_down as parts:
            remaining = iter(parts)
            for rows in remaining:
                with self.writing(purpose) as connection:
                    n_rows, n_new = rows.num_rows, _insert_new(connection, table, rows)
                    while n_rows < ROWS_IN_TRANSACTION and (more := next(remaining, None)) is not None:
                        n_rows, n_new = n_rows + more.num_rows, n_new + _insert_new(connection, table, more)
                added += n_new
        return added

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
        with self.reading("a query") as connection:
            try:
                # The file is open for reading only; these keep a statement from other files and from our own variables.
                for setting in ("enable_external_access", "python_enable_replacements"):
                    connection.execute(f"SET {setting} = false")
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
        if not self.home.warehouse.exists():
            return ""
        try:
            duckdb.connect(str(self.home.warehouse), read_only=True).close()
        except duckdb.IOException as error:
            return str(error) if "Could not set lock on file" in str(error) else ""
        except duckdb.Error:
            return ""
        return ""

    def _connect(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        """Opens the file, waiting for a process that opened it without our lock, such as a DuckDB shell."""
        notice_at = time.monotonic() + 3.0
        while True:
            try:
                return _connected(str(self.home.warehouse), read_only=read_only)
            except duckdb.IOException as error:
                if "Could not set lock on file" not in str(error):
                    raise _explain(error, self.home.warehouse) from error
                if time.monotonic() >= notice_at:
                    self._notify(f"Waiting for another program to close the warehouse: {error}")
                    notice_at = time.monotonic() + NOTICE_EVERY_SECONDS
                time.sleep(LONGEST_PAUSE_SECONDS)
            except duckdb.Error as error:
                raise _explain(error, self.home.warehouse) from error


def _connected(file: str, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    """A connection that writes small groups of rows, and draws no progress bar over what we tell of progress."""
    if read_only:
        connection = duckdb.connect(file, read_only=True)
    else:
        connection = duckdb.connect()
        literal = file.replace("'", "''")  # ATTACH takes no parameter
        connection.execute(f"ATTACH '{literal}' AS warehouse (ROW_GROUP_SIZE {ROWS_IN_GROUP})")
        connection.execute("USE warehouse")
        connection.execute("SET write_buffer_row_group_count = 1")
    connection.execute("SET enable_progress_bar = false")
    return connection


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


def _explain(error: duckdb.Error, path: Path) -> SaerlError:
    message = str(error)
    if "No space left on device" in message:
        remedy = "Make room on the disk, then run again; the rows of before are untouched."
        return SaerlError("disk_full", message, where=str(path), remedy=remedy)
    remedy = "Check that the file is a DuckDB database of this program and that you may write to it."
    return SaerlError("warehouse_unreadable", message, where=str(path), remedy=remedy)
