"""A lock between processes that can say who holds it.

Belongs here: taking and waiting for the lock. Does not belong here: what is done under it.

DuckDB lets one process write and then refuses every other one, readers too. Waiting for a file lock first turns that
refusal into an orderly queue. The kernel releases the lock of a killed process, so none is ever left behind.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from saerl_assets.domain.errors import SaerlError

FIRST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 0.25
NOTICE_AFTER_SECONDS = 3.0
NOTICE_EVERY_SECONDS = 30.0


def holder(path: Path) -> str:
    """Who holds, or last held, the lock for writing, in words; empty if nobody ever did."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return ""
    return f"process {record['pid']} on {record['host']} ({record['purpose']}, since {record['since']})"


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock, for reading or for writing, right now."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _try(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, *, exclusive: bool, purpose: str, notify: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock while the block runs; waits for it as long as it takes.

    Args:
        path: The lock file; it is made where it is missing.
        exclusive: For writing: alone. Otherwise for reading: together with other readers.
        purpose: What the lock is held for, shown to those who wait.
        notify: Told after 3 seconds, and every 30, for whom this waits.

    Raises:
        SaerlError: `home_not_writable` if the lock file cannot be made.
    """
    try:
        descriptor = _opened(path, exclusive=exclusive)
    except OSError as error:
        raise SaerlError(
            "home_not_writable",
            f"The home cannot be written: its lock file cannot be opened: {error.strerror}.",
            where=str(path),
            remedy="Give write permission to the home, or choose another with --home or SAERL_HOME.",
        ) from error
    try:
        _wait(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH, path, notify)
        if exclusive:
            _sign(descriptor, purpose)
        yield
    finally:
        os.close(descriptor)  # closing releases the lock


def _opened(path: Path, *, exclusive: bool) -> int:
    """The lock file, made where it is missing. Who only reads needs no permission to write to one that is there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:
        if exclusive:
            raise
        return os.open(path, os.O_RDONLY)


def _wait(descriptor: int, kind: int, path: Path, notify: Callable[[str], None]) -> None:
    started, pause, notice_at = time.monotonic(), FIRST_PAUSE_SECONDS, NOTICE_AFTER_SECONDS
    while not _try(descriptor, kind):
        waited = time.monotonic() - started
        if waited >= notice_at:
            notify(f"Waiting for {path} for {waited:.0f} s; it is held by {holder(path) or 'a reader'}.")
            notice_at = waited + NOTICE_EVERY_SECONDS
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(descriptor: int, purpose: str) -> None:
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    record = {"pid": os.getpid(), "host": socket.gethostname(), "purpose": purpose, "since": since}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(record).encode(), 0)
