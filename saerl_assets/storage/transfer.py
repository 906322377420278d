"""Moving all tables from one warehouse to another, and proving that they arrived.

Belongs here: copying, counting, digests. Does not belong here: which warehouse a home uses (home).

Nothing is taken away from where the rows were. They are read from one state of the source and written in transactions
of their own; an interrupted move goes on with the table that it was at. A table counts as moved when both sides have as
many rows with the same digest. Until the last one has, the target is marked as unfinished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa

from saerl_assets.disk import write_whole
from saerl_assets.domain.errors import SaerlError
from saerl_assets.storage.home import Home
from saerl_assets.storage.lake_address import LakeAddress, is_lake
from saerl_assets.storage.schema import Table, tables
from saerl_assets.storage.warehouse import Warehouse

ROWS_IN_BATCH = 10_000
ROWS_IN_TRANSACTION = 60_000
"""Rows that are in memory and are committed together: of 700 active features each, about 1 GB."""

_MARK = "move not finished"
_NEVER_NEWEST = datetime(1970, 1, 1)  # noqa: DTZ001 - the table has no time zones; the newest row names the release


@dataclass(frozen=True)
class Moved:
    """One table: what it holds on both sides, and whether it was there before."""

    table: str
    n_rows: int
    digest: str
    was_there: bool


def target_home(home: Home, target: str, data_path: str) -> Home:
    """The home as it would be with another warehouse.

    Args:
        home: As it is.
        target: `ducklake:...`, a DuckDB file, or `local` for the file in the home.
        data_path: Where a lake's files are to be.

    Raises:
        SaerlError: `lake_invalid`.
    """
    if target == "local":
        return Home(home.root)
    if is_lake(target):
        return Home(home.root, lake=LakeAddress.parse(target, data_path, home.root))
    return Home(home.root, warehouse_file=Path(target).expanduser().resolve())


def move_tables(
    source: Warehouse, target: Warehouse, tell: Callable[[str], None], then: Callable[[], None] | None = None
) -> list[Moved]:
    """Copies every table and holds both sides against each other.

    Args:
        source: Where the rows are; nothing is written to it meanwhile, if it is a file, and none of it changes.
        target: Where they go: empty, or begun by this before.
        tell: Is told of every table.
        then: Is called when all has arrived, before anybody can write to a source that is a file.

    Raises:
        SaerlError: `migration_same`, `migration_target_in_use`, `migration_differs`, and those of either warehouse.
    """
    if source.database.place == target.database.place:
        remedy = "Name another one: ducklake:..., a DuckDB file, or local."
        raise SaerlError("migration_same", "It is there already.", where=source.database.place, remedy=remedy)
    with source.writing("bringing the tables up to date"):
        pass
    with source.reading("moving the tables") as rows:
        found = {name: _measured(rows, table) for name, table in tables().items()}
        before = _begin(target, found)
        moved = []
        for name, table in tables().items():
            was_there = before[name] == found[name]
            if not was_there:
                _copy(rows, target, table)
                with target.reading(name) as connection:
                    _compare(name, found[name], _measured(connection, table))
            moved.append(Moved(name, *found[name], was_there))
            if found[name][0]:
                tell(f"{name}: {found[name][0]:,} rows{', there before' if was_there else ''}")
        target.transact("the move is finished", _unmark, turn="schema_history")
        if then is not None:
            then()
    return moved


def use_warehouse(home: Home) -> None:
    """Writes into the home which warehouse it uses from now on."""
    settings = home.warehouse_settings
    if home.lake is None and home.warehouse_file is None:
        settings.unlink(missing_ok=True)
    else:
        lines = [f"warehouse = {_quoted(home.warehouse_place)}"]
        if home.lake is not None and home.lake.data_path:
            lines.append(f"data_path = {_quoted(home.lake.data_path)}")
        write_whole(
            settings,
            "\n".join(["# Where the tables of this home are. Passwords and keys: in the environment.", *lines, ""]),
        )


def _measured(connection: duckdb.DuckDBPyConnection, table: Table) -> tuple[int, str]:
    """Rows of a table and a digest of them that does not depend on their order."""
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    statement = f'SELECT count(*), sum(hash({columns})::HUGEINT), sum(hash({columns}, 1)::HUGEINT) FROM "{table.name}"'  # noqa: S608
    n_rows, one, other = connection.execute(statement).fetchone() or (0, 0, 0)
    return int(n_rows), f"{int(one or 0):024x}{int(other or 0):024x}"


def _begin(target: Warehouse, found: dict[str, tuple[int, str]]) -> dict[str, tuple[int, str]]:
    """What the target has of each table; it is marked as unfinished from here on."""

    def begin(connection: duckdb.DuckDBPyConnection) -> dict[str, tuple[int, str]]:
        there = {name: _measured(connection, table) for name, table in tables().items()}
        marks = connection.execute("SELECT count(*) FROM schema_history WHERE name = ?", [_MARK]).fetchall()
        in_use = [name for name, (n_rows, _) in there.items() if n_rows and there[name] != found[name]]
        if marks == [(0,)]:
            if in_use:
                problem = f"It has other rows in {', '.join(in_use[:3])}; nothing was changed."
                remedy = "Name an empty place, or move that warehouse out of the way."
                raise SaerlError("migration_target_in_use", problem, where=target.database.place, remedy=remedy)
            connection.execute("INSERT INTO schema_history VALUES (?, ?, ?)", [_MARK, "", _NEVER_NEWEST])
        return there

    return target.transact("beginning to move tables", begin, turn="schema_history")


def _unmark(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("DELETE FROM schema_history WHERE name = ?", [_MARK])


def _copy(rows: duckdb.DuckDBPyConnection, target: Warehouse, table: Table) -> None:
    """Replaces the target's rows of a table, a transaction for every `ROWS_IN_TRANSACTION`."""
    target.transact(f"moving {table.name}", partial(_empty, name=table.name), turn=table.name)
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    reader = rows.execute(f'SELECT {columns} FROM "{table.name}"').to_arrow_reader(ROWS_IN_BATCH)  # noqa: S608
    n_done = 0
    for part in _parts(reader):
        n_done = target.transact(
            f"moving {table.name}", partial(_append, part=part, table=table, n_before=n_done), turn=table.name
        )


def _parts(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """The rows in tables of about `ROWS_IN_TRANSACTION`."""
    for first in reader:
        taken, n_rows = [first], first.num_rows
        while n_rows < ROWS_IN_TRANSACTION and (more := next(reader, None)) is not None:
            taken.append(more)
            n_rows += more.num_rows
        yield pa.Table.from_batches(taken)


def _empty(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    connection.execute(f'DELETE FROM "{name}"')  # noqa: S608 - our own name


def _append(connection: duckdb.DuckDBPyConnection, part: pa.Table, table: Table, n_before: int) -> int:
    """Adds a part unless an attempt of before has; returns how many rows there are then."""
    found = connection.execute(f'SELECT count(*) FROM "{table.name}"').fetchall()  # noqa: S608 - our own name
    if found == [(n_before,)]:
        connection.register("incoming", part)
        columns = ", ".join(f'"{column.name}"' for column in table.columns)
        connection.execute(f'INSERT INTO "{table.name}" ({columns}) SELECT {columns} FROM incoming')  # noqa: S608
        connection.unregister("incoming")
    return n_before + int(part.num_rows)


def _compare(name: str, wanted: tuple[int, str], found: tuple[int, str]) -> None:
    if wanted != found:
        problem = f"{wanted[0]:,} rows with digest {wanted[1][:12]} left, {found[0]:,} with {found[1][:12]} arrived."
        remedy = "Run it again, and let nothing else write to either warehouse; the home still uses the old one."
        raise SaerlError("migration_differs", problem, where=f"table {name}", remedy=remedy)


def _quoted(text: str) -> str:
    """As TOML writes it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
