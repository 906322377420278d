"""Folders that are whole or not there.

Belongs here: writing an export's folder so that a reader never finds a part of it. Does not belong here: what
is in it (export, formats).
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from saerl_assets.domain.errors import SaerlError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `target` when the block ends, and vanishes when it fails.

    It lies beside `target`, so that one rename is all it takes. A `target` with the same files stays as it
    is.

    Raises:
        SaerlError: `disk_full` or `not_writable`.
    """
    made: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        yield made
        for path in [*made.iterdir(), made]:
            _sync(path)
        made.chmod(0o755)
        if not (target.is_dir() and file_digests(target) == file_digests(made)):
            _take_place(made, target)
        _sync(target.parent)
    except OSError as error:
        code = "disk_full" if error.errno == errno.ENOSPC else "not_writable"
        remedy = "Make room or give write permission, or name another folder, then export again."
        raise SaerlError(code, f"{error}.", where=str(target), remedy=remedy) from error
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 in hex of every file in a folder, by name."""
    return {path.name: file_digest(path) for path in sorted(folder.iterdir()) if path.is_file()}


def file_digest(path: Path) -> str:
    """SHA-256 in hex of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _take_place(made: Path, target: Path) -> None:
    """Puts `made` where `target` is; the old one goes only after it has been moved aside."""
    aside = made.with_name(f"{made.name}.old")
    if target.exists():
        target.rename(aside)
    made.rename(target)
    shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    """Makes sure that a file or folder is on the disk and not only in memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
