"""Taking turns at a table of a lake, between machines.

Belongs here: PostgreSQL's advisory locks, held while one transaction goes on. Does not belong here: the transaction.

A lake lets any two transactions insert at once, so two that add the rows that a table lacks would both add them, and
of two that replace rows of one table one is refused. Those that write to one table take turns instead; others do not
wait. The server ends the turn of a process that died.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from saerl_assets.storage.database import Notify
from saerl_assets.storage.locks import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    NOTICE_AFTER_SECONDS,
    NOTICE_EVERY_SECONDS,
)

DATABASE = "turns"
"""Name under which a connection has the catalogue's PostgreSQL database attached as such."""

_LONGEST_NAME = 63
"""Characters of an application's name that PostgreSQL keeps."""


@contextmanager
def taking_turns(connection: duckdb.DuckDBPyConnection, turn: str, purpose: str, notify: Notify) -> Iterator[None]:
    """Holds the turn while the block runs; waits for it as long as it takes.

    Args:
        connection: One of its own, whose database has `DATABASE` attached.
        turn: Name of what only one may write at a time.
        purpose: Shown to those who wait.
        notify: Is told after 3 seconds, and every 30, for whom this waits.

    Raises:
        duckdb.Error: The server is out of reach.
    """
    number = _number(turn)
    connection.begin()
    try:
        _ask(connection, f"SELECT concat({_sign(purpose)}, {_KEEPALIVE})")
        started, pause, notice_at = time.monotonic(), FIRST_PAUSE_SECONDS, NOTICE_AFTER_SECONDS
        while not _ask(connection, f"SELECT pg_try_advisory_xact_lock({number:d})")[0][0]:
            waited = time.monotonic() - started
            if waited >= notice_at:
                notify(f"Waiting for {turn} for {waited:.0f} s; it is written to by {holder_of(connection, turn)}.")
                notice_at = waited + NOTICE_EVERY_SECONDS
            time.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)
        yield
    finally:
        connection.rollback()


def holder_of(connection: duckdb.DuckDBPyConnection, turn: str) -> str:
    """Who has the turn, in words."""
    number = _number(turn)
    found = _ask(
        connection,
        "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' "  # noqa: S608 - a number
        f"AND l.granted AND l.classid = {number >> 32:d} AND l.objid = {number & 0xFFFFFFFF:d}",
    )
    return str(found[0][0]) if found else "another process"


def _number(turn: str) -> int:
    """The name as PostgreSQL wants it: 63 bits."""
    return int.from_bytes(hashlib.sha256(f"saerl {turn}".encode()).digest()[:8], "big") >> 1


def _sign(purpose: str) -> str:
    """Says in the server's list of sessions who this is, until the transaction ends."""
    name = f"process {os.getpid()} on {socket.gethostname()} ({purpose})"
    plain = re.sub(r"[^\w .:@()-]", "?", name)[:_LONGEST_NAME]
    return f"set_config('application_name', '{plain}', true)"


_KEEPALIVE = (
    "set_config('tcp_keepalives_idle', '30', true), set_config('tcp_keepalives_interval', '10', true), "
    "set_config('tcp_keepalives_count', '3', true)"
)
"""The server notices within a minute that a machine is gone, and ends its turn."""


def _ask(connection: duckdb.DuckDBPyConnection, statement: str) -> list[tuple[object, ...]]:
    """What PostgreSQL answers. Statements are made of our own words and numbers."""
    return connection.execute("SELECT * FROM postgres_query(?, ?)", [DATABASE, statement]).fetchall()
