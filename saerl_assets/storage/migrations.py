"""Bringing a warehouse up to the tables and views of this release.

Belongs here: what runs once when a warehouse is opened for writing. Does not belong here: the DDL, which is in `sql/`.

A new warehouse gets `sql/tables/` as it stands. One that exists runs those files of `sql/migrations/` that it has not
run yet, in the order of their names. Views are made anew whenever their files have changed.
"""

from __future__ import annotations

from datetime import UTC, datetime

import duckdb

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.spec import digest
from saerl_assets.storage.package_data import sql_folder
from saerl_assets.storage.schema import tables, views


def migrate(connection: duckdb.DuckDBPyConnection) -> None:
    """Makes or updates tables and views in one transaction; does nothing where nothing has changed.

    Raises:
        SaerlError: `warehouse_other_release` if a table's columns are not those of this release.
    """
    definitions = {name: table.ddl for name, table in tables().items()} | dict(views())
    release = digest(definitions)
    if _has(connection, "schema_history") and release == _latest(connection):
        return
    connection.begin()
    is_new = not _has(connection, "schema_history")
    connection.execute((sql_folder() / "schema_history.sql").read_text())
    done = {row[0] for row in connection.execute("SELECT name FROM schema_history").fetchall()}
    for file in sorted((sql_folder() / "migrations").glob("*.sql")):
        if file.stem not in done:
            if not is_new:
                connection.execute(file.read_text())
            _record(connection, file.stem, release)
    for table in tables().values():
        connection.execute(table.ddl)
    _verify_columns(connection)
    for view in views().values():
        connection.execute(view)
    _record(connection, "definitions", release)
    connection.commit()


def _has(connection: duckdb.DuckDBPyConnection, table: str) -> bool:
    query = "SELECT count(*) FROM information_schema.tables WHERE table_name = ?"
    row = connection.execute(query, [table]).fetchone()
    return bool(row and row[0])


def _latest(connection: duckdb.DuckDBPyConnection) -> str:
    query = "SELECT release FROM schema_history ORDER BY applied_at DESC, name LIMIT 1"
    row = connection.execute(query).fetchone()
    return str(row[0]) if row else ""


def _record(connection: duckdb.DuckDBPyConnection, name: str, release: str) -> None:
    now = datetime.now(UTC).replace(tzinfo=None)
    connection.execute("INSERT INTO schema_history VALUES (?, ?, ?)", [name, release, now])


def _verify_columns(connection: duckdb.DuckDBPyConnection) -> None:
    for table in tables().values():
        query = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = ?"
        found = connection.execute(query, [table.name]).fetchall()
        wanted = [(column.name, column.type) for column in table.columns]
        if sorted(found) != sorted(wanted):
            raise SaerlError(
                "warehouse_other_release",
                f"Its columns are {found}, this release wants {wanted}.",
                where=f"table {table.name}",
                remedy="Use the release that made this warehouse, or start a new home with --home.",
            )
