"""Files that are whole or not there, and their digests.

Belongs here: atomic writes of files and folders, SHA-256 over bytes on disk. Does not belong here: what the files are.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saerl_assets.domain.errors import SaerlError

_BLOCK_BYTES = 1 << 20


def file_digest(path: Path) -> str:
    """SHA-256 in hex of a file's bytes."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            sha.update(block)
    return sha.hexdigest()


def folder_digest(folder: Path) -> str:
    """SHA-256 in hex over the names, sizes and bytes of all files below a folder; of a file: over its bytes."""
    if folder.is_file():
        return file_digest(folder)
    sha = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        sha.update(f"{path.relative_to(folder).as_posix()}\0{file_digest(path)}\0".encode())
    return sha.hexdigest()


def size_bytes(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees the old one or the new one, never a part, whatever is killed when."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError as error:
        raise disk_error(error, path) from error


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place when the block ends, and vanishes when it fails.

    Whoever finds `target` finds all of it. A `target` that is already there is replaced.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield folder
        for file in folder.rglob("*"):
            if file.is_file():
                _sync(file)
        folder.chmod(0o755)
        _take_place(folder, target)
    except OSError as error:
        raise disk_error(error, target) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _take_place(folder: Path, target: Path) -> None:
    """Puts `folder` where `target` is. Where another process is faster, either one's folder stays, whole."""
    try:
        folder.replace(target)
    except OSError:  # a folder that holds something cannot be replaced in one step
        aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old."))
        try:
            target.replace(aside / "old")
            folder.replace(target)
        except OSError:
            if not target.is_dir():
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def disk_error(error: OSError, path: Path) -> SaerlError:
    """A full or read-only disk in words."""
    remedy = "Make room on the disk (saerl doctor shows how much there is) or give write permission, then run again."
    return SaerlError("disk_full" if error.errno == 28 else "not_writable", f"{error}.", where=str(path), remedy=remedy)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
