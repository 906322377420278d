"""The warehouse as a lake: a catalogue in PostgreSQL, rows in Parquet files of a folder or an object store.

Belongs here: connections to it, and what its failures mean. Does not belong here: what is in the tables.

Several machines write at once. Each transaction sees the lake as it was when it began, and is refused at its end where
another has changed the same table meanwhile: then it is done again (`Warehouse.transact`). A small lake can have its
catalogue in a DuckDB file, on one machine, under the lock of `duckdb_file`.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import duckdb

from saerl_assets.domain.errors import SaerlError, sounds_passing
from saerl_assets.storage.credentials import add_secret
from saerl_assets.storage.database import Notify
from saerl_assets.storage.duckdb_file import ROWS_IN_GROUP, explain, warehouse_missing
from saerl_assets.storage.extensions import SETTINGS, load_extensions
from saerl_assets.storage.lake_address import PREFIX, LakeAddress
from saerl_assets.storage.locks import locked
from saerl_assets.storage.migrations import migrate
from saerl_assets.storage.turns import DATABASE, taking_turns

ROWS_IN_TRANSACTION = 60_000
"""Rows of shards that are committed together. They are kept in memory until then, to be laid down again where the
transaction is refused: of 700 active features each, about 1 GB."""

CATALOGUE = "warehouse"
"""Name under which a connection has the lake attached."""

CONNECT_SECONDS = 10
SCHEMA_TURN = "the tables' definitions"

_log = logging.getLogger(__name__)

_MISSING = re.compile(
    r"does not exist - cannot|creating a new DuckLake is|Cannot open file .* in read-only mode|No such file"
)
_OTHER_PATH = re.compile(r"DATA_PATH parameter|does not match existing data path")
_BUSY = re.compile(
    r"Transaction conflict|database is locked|could not serialize|deadlock detected|duplicate key value"
    r"|Could not set lock on file|write-write conflict|Conflict on update|exceeded the maximum retry count",
    re.IGNORECASE,
)
_UNREACHABLE = re.compile(
    r"could not connect|unable to connect|connection to server|server closed the connection|terminating connection"
    r"|could not translate host|could not receive data|no connection to the server|SSL connection has been closed"
    r"|the database system is|too many clients|Connection error for HTTP|Could not establish connection"
    r"|HTTP (?:429|50[0234])",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"password authentication failed|no password supplied|permission denied|HTTP 40[13]|no pg_hba.conf entry"
    r'|(?:role|database) "[^"]*" does not exist',
    re.IGNORECASE,
)


class Lake:
    """A lake at an address."""

    rows_in_transaction = ROWS_IN_TRANSACTION

    def __init__(self, address: LakeAddress) -> None:
        self.address = address
        self._lock = Path(f"{address.catalogue}.lock") if address.kind == "file" else None

    @property
    def place(self) -> str:
        """The catalogue; it holds no secret."""
        return self.address.text

    def exists(self) -> bool:
        """Whether the lake was made.

        Raises:
            SaerlError: `lake_unreachable`, `lake_refused` and the like: then that is not known.
        """
        try:
            with self.reading("looking", _nobody):
                return True
        except SaerlError as error:
            if error.code == "warehouse_missing":
                return False
            raise

    def size(self) -> str:
        """Of the files that the newest state refers to."""
        with self.reading("looking", _nobody) as connection:
            files = "SELECT sum(file_count), sum(file_size_bytes) FROM ducklake_table_info(?)"
            n_files, n_bytes = connection.execute(files, [CATALOGUE]).fetchone() or (0, 0)
        return f"{(n_bytes or 0) / 1e6:.1f} MB in {n_files or 0:,} files"

    @contextmanager
    def reading(self, purpose: str, notify: Notify) -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-only connection that sees one state of the lake, however many write meanwhile."""
        with self._alone(purpose, notify, exclusive=False), self._cursor(read_only=True) as connection:
            connection.begin()
            yield connection
            connection.execute("RESET memory_limit")  # who reads may have set it for all that is read after

    @contextmanager
    def writing(self, purpose: str, turn: str, notify: Notify) -> Iterator[duckdb.DuckDBPyConnection]:
        """A transaction, in turn with others that write to the same table."""
        with (
            self._alone(purpose, notify, exclusive=True),
            self._cursor(read_only=False) as connection,
            nullcontext() if self._lock else taking_turns(connection.cursor(), turn, purpose, notify),
        ):
            connection.begin()
            yield connection
            connection.commit()

    @contextmanager
    def confined(self, purpose: str, notify: Notify) -> Iterator[duckdb.DuckDBPyConnection]:
        """A reading connection with a database of its own, that may open the lake's files and no others."""
        with self._alone(purpose, notify, exclusive=False), self._explained():
            connection = connect(self.address, read_only=True)
            try:
                connection.execute("SET allowed_directories = $1", [[data_path_of(connection)]])
                for setting in ("enable_external_access", "python_enable_replacements"):
                    connection.execute(f"SET {setting} = false")
                yield connection
            finally:
                connection.close()

    def held_by_another_program(self) -> str:
        """Nothing holds a lake up."""
        return ""

    def _alone(self, purpose: str, notify: Notify, *, exclusive: bool) -> AbstractContextManager[None]:
        """The lock beside a catalogue that is a file, which one process may have open at a time."""
        if self._lock is None:
            return nullcontext()
        return locked(self._lock, exclusive=exclusive, purpose=purpose, notify=notify)

    @contextmanager
    def _cursor(self, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor of this process's connection to the lake. One that has failed is not used again."""
        key = (os.getpid(), self.address, read_only)
        with self._explained():
            connection, cursor = self._begun(key, read_only=read_only)
            try:
                yield cursor
            except duckdb.Error as error:
                if not _BUSY.search(str(error)):
                    _connections.pop(key, None)
                raise
            finally:
                cursor.close()  # an open transaction is rolled back
                if self._lock is not None:
                    _connections.pop(key, None)
                    connection.close()  # so that the next process can open the file

    def _begun(
        self, key: tuple[int, LakeAddress, bool], *, read_only: bool
    ) -> tuple[duckdb.DuckDBPyConnection, duckdb.DuckDBPyConnection]:
        """The connection and a cursor that the catalogue has answered; a server that was restarted is met anew."""
        with _connecting:
            is_new = key not in _connections
            if is_new:
                _connections[key] = connect(self.address, read_only=read_only)
            connection = _connections[key]
        try:
            cursor = connection.cursor()
            cursor.execute(f"USE {CATALOGUE}")
            add_secret(cursor, data_path_of(cursor))
        except duckdb.Error:
            _connections.pop(key, None)
            if is_new:
                raise
            return self._begun(key, read_only=read_only)
        return connection, cursor

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            raise _explain(error, self.place) from error


_connections: dict[tuple[int, LakeAddress, bool], duckdb.DuckDBPyConnection] = {}
"""What a process has open: loading the extensions takes half a second, which a transaction does not."""
_connecting = threading.Lock()


def connect(address: LakeAddress, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    """A connection of its own, with the lake attached; one that writes makes the lake, or brings it up to date.

    Raises:
        duckdb.Error: What went wrong.
        SaerlError: `lake_extension_missing`, `warehouse_missing`, `warehouse_other_release`.
    """
    if read_only and address.kind == "file" and not Path(address.catalogue).exists():
        raise warehouse_missing(address.text)
    connection = duckdb.connect(config=SETTINGS)
    connection.execute("SET enable_progress_bar = false")
    load_extensions(connection, _extensions(address))
    # Few rows would go into the catalogue as text, where doubles lose their last bits and no text may hold a NUL.
    connection.execute("SET ducklake_default_data_inlining_row_limit = 0")
    if address.kind == "postgres":
        session = address.with_option("connect_timeout", str(CONNECT_SECONDS))
        connection.execute(f"ATTACH {_literal(session)} AS {DATABASE} (TYPE postgres)")
    if read_only:
        _attach(connection, address, read_only=True)
        made = "SELECT count(*) FROM information_schema.tables WHERE table_name = 'schema_history'"
        if connection.execute(made).fetchall() == [(0,)]:
            raise warehouse_missing(address.text)
        return connection
    alone: AbstractContextManager[None] = nullcontext()
    if address.kind == "postgres":
        alone = taking_turns(connection.cursor(), SCHEMA_TURN, SCHEMA_TURN, _log.warning)
    with alone:
        _attach(connection, address, read_only=False)
        options = "SELECT count(*) FROM ducklake_options($1) WHERE option_name = 'parquet_row_group_size'"
        if connection.execute(options, [CATALOGUE]).fetchall() == [(0,)]:
            connection.execute(f"CALL {CATALOGUE}.set_option('parquet_compression', 'zstd')")
            connection.execute(f"CALL {CATALOGUE}.set_option('data_inlining_row_limit', 0)")
            connection.execute(f"CALL {CATALOGUE}.set_option('parquet_row_group_size', {ROWS_IN_GROUP})")
        migrate(connection)
    return connection


def data_path_of(connection: duckdb.DuckDBPyConnection) -> str:
    """Where the catalogue says that the files are."""
    option = "SELECT value FROM ducklake_options($1) WHERE option_name = 'data_path'"
    found = connection.execute(option, [CATALOGUE]).fetchone()
    return str(found[0]) if found else ""


def _attach(connection: duckdb.DuckDBPyConnection, address: LakeAddress, *, read_only: bool) -> None:
    catalogue = address.catalogue
    if address.kind == "postgres":
        catalogue = f"postgres:{address.with_option('connect_timeout', str(CONNECT_SECONDS))}"
    elif not read_only:
        Path(catalogue).parent.mkdir(parents=True, exist_ok=True)
    options = ["READ_ONLY"] if read_only else []
    if address.data_path:
        options.append(f"DATA_PATH {_literal(address.data_path)}")
    with_options = f" ({', '.join(options)})" if options else ""
    connection.execute(f"ATTACH {_literal(PREFIX + catalogue)} AS {CATALOGUE}{with_options}")
    connection.execute(f"USE {CATALOGUE}")
    add_secret(connection, data_path_of(connection))


def _extensions(address: LakeAddress) -> list[str]:
    return [
        "ducklake",
        *(["postgres_scanner"] if address.kind == "postgres" else []),
        *(["httpfs"] if address.is_remote or not address.data_path else []),
    ]


def _literal(text: str) -> str:
    """Text for ATTACH, which takes no parameter."""
    return "'" + text.replace("'", "''") + "'"


def _nobody(message: str) -> None:
    """Is told of waiting where nobody waits to be told."""


def _explain(error: duckdb.Error, place: str) -> SaerlError:
    """What a lake's failure means, and whether it may be gone in a while."""
    message = str(error)
    if _MISSING.search(message):
        return warehouse_missing(place)
    if _OTHER_PATH.search(message):
        remedy = "Leave data_path out, or set it to the one that the lake was made with."
        return SaerlError("lake_invalid", message, where="data_path", remedy=remedy)
    if _BUSY.search(message):
        remedy = "Run it again; nothing of it was stored."
        return SaerlError("lake_busy", message, where=place, remedy=remedy, passing=True)
    if _REFUSED.search(message):
        remedy = "Check user, database and bucket, and the variables PGPASSWORD, AWS_ACCESS_KEY_ID and its like."
        return SaerlError("lake_refused", message, where=place, remedy=remedy)
    if _UNREACHABLE.search(message) or sounds_passing(message):
        remedy = "Check that PostgreSQL and the object store answer from here, then run again."
        return SaerlError("lake_unreachable", message, where=place, remedy=remedy, passing=True)
    return explain(error, place)
