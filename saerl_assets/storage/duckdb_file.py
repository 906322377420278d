"""The warehouse as one DuckDB file: short transactions under a file lock.

Belongs here: opening the file for one process at a time. Does not belong here: what is in the tables.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from saerl_assets.domain.errors import SaerlError
from saerl_assets.storage.database import Notify
from saerl_assets.storage.locks import LONGEST_PAUSE_SECONDS, NOTICE_EVERY_SECONDS, locked
from saerl_assets.storage.migrations import migrate

ROWS_IN_GROUP = 20_480
"""Rows that DuckDB holds in memory until it writes them to the file; its own 122,880 take 4 GB where rows are features,
and go through the write-ahead log as well."""

ROWS_IN_TRANSACTION = 200_000
"""Rows of shards that are committed together: of 700 active features each, they take some 3 GB until then."""


class DuckdbFile:
    """A file and the lock beside it."""

    rows_in_transaction = ROWS_IN_TRANSACTION

    def __init__(self, file: Path, lock: Path) -> None:
        self.file = file
        self.lock = lock
        self._is_migrated = False

    @property
    def place(self) -> str:
        """The file."""
        return str(self.file)

    def exists(self) -> bool:
        """Whether there is a file."""
        return self.file.exists()

    def size(self) -> str:
        """Of the file."""
        return f"{self.file.stat().st_size / 1e6:.1f} MB"

    @contextmanager
    def reading(self, purpose: str, notify: Notify) -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-only connection, together with other readers.

        Raises:
            SaerlError: `warehouse_missing` before anything was registered, `warehouse_unreadable`.
        """
        if not self.exists():
            raise warehouse_missing(self.place)
        with locked(self.lock, exclusive=False, purpose=purpose, notify=notify):
            connection = self._connect(notify, read_only=True)
            try:
                yield connection
            except duckdb.Error as error:
                raise explain(error, self.place) from error
            finally:
                connection.close()

    @contextmanager
    def writing(self, purpose: str, turn: str, notify: Notify) -> Iterator[duckdb.DuckDBPyConnection]:  # noqa: ARG002
        """A transaction, alone: whatever the turn is for, there is one writer."""
        with locked(self.lock, exclusive=True, purpose=purpose, notify=notify):
            connection = self._connect(notify, read_only=False)
            try:
                if not self._is_migrated:
                    migrate(connection)
                    self._is_migrated = True
                connection.begin()
                yield connection
                connection.commit()
            except duckdb.Error as error:
                raise explain(error, self.place) from error
            finally:
                connection.close()  # an open transaction is rolled back

    @contextmanager
    def confined(self, purpose: str, notify: Notify) -> Iterator[duckdb.DuckDBPyConnection]:
        """The file is open for reading only; the settings keep a statement from other files and our own variables."""
        with self.reading(purpose, notify) as connection:
            for setting in ("enable_external_access", "python_enable_replacements"):
                connection.execute(f"SET {setting} = false")
            yield connection

    def held_by_another_program(self) -> str:
        """What DuckDB says if a program that knows nothing of our lock, such as its shell, has the file open."""
        if not self.exists():
            return ""
        try:
            duckdb.connect(self.place, read_only=True).close()
        except duckdb.IOException as error:
            return str(error) if "Could not set lock on file" in str(error) else ""
        except duckdb.Error:
            return ""
        return ""

    def _connect(self, notify: Notify, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        """Opens the file, waiting for a process that opened it without our lock, such as a DuckDB shell."""
        notice_at = time.monotonic() + 3.0
        while True:
            try:
                return _connected(self.place, read_only=read_only)
            except duckdb.IOException as error:
                if "Could not set lock on file" not in str(error):
                    raise explain(error, self.place) from error
                if time.monotonic() >= notice_at:
                    notify(f"Waiting for another program to close the warehouse: {error}")
                    notice_at = time.monotonic() + NOTICE_EVERY_SECONDS
                time.sleep(LONGEST_PAUSE_SECONDS)
            except duckdb.Error as error:
                raise explain(error, self.place) from error


def warehouse_missing(place: str) -> SaerlError:
    """That nothing was ever stored there."""
    remedy = "Register a version first: saerl register SPEC.toml"
    return SaerlError("warehouse_missing", "There is no warehouse yet.", where=place, remedy=remedy)


def explain(error: duckdb.Error, place: str) -> SaerlError:
    """What DuckDB says of a warehouse, with what to do."""
    message = str(error)
    if "No space left on device" in message:
        remedy = "Make room on the disk, then run again; the rows of before are untouched."
        return SaerlError("disk_full", message, where=place, remedy=remedy)
    remedy = "Check that the file is a DuckDB database of this program and that you may write to it."
    return SaerlError("warehouse_unreadable", message, where=place, remedy=remedy)


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
