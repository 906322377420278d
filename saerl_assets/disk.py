"""Files and folders that are whole or not there, and their digests.

Belongs here: the one way in which anything but the warehouse is put on disk, SHA-256 over bytes on disk. Does not
belong here: what the files are.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saerl_assets.domain.errors import SaerlError

_SHOWN_CHARACTERS = 200


def placed(name: str, folder: Path) -> Path:
    """The place that a name in a spec stands for: absolute, from `folder` on, `~` at the person's own folder.

    Nothing needs to be there yet.

    Raises:
        SaerlError: `path_invalid` for what no file can be called.
    """
    try:
        place = (folder / Path(name).expanduser()).absolute()
        place.resolve()
        place.exists()
    except PermissionError:
        return place
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, not UTF-8, or a person who is not there
        shown = name.encode(errors="backslashreplace").decode()
        shown = shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[:_SHOWN_CHARACTERS]}..."
        problem = f"This is no path: {getattr(error, 'strerror', None) or error}."
        remedy = "Give the path of a file or folder; a relative one starts at the spec's folder."
        raise SaerlError("path_invalid", problem, where=shown, remedy=remedy) from error
    return place


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place when the block ends, and vanishes when it fails.

    Whoever finds `target` finds all of it, whatever is killed when. What was there before is replaced, unless it has
    the same bytes. Where another process was faster, either one's folder stays, whole.

    Raises:
        SaerlError: `disk_full`, `not_writable`.
    """
    folder: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        yield folder
        for path in [*folder.rglob("*"), folder]:
            _sync(path)
        folder.chmod(0o755)
        if not (target.is_dir() and folder_digest(target) == folder_digest(folder)):
            _take_place(folder, target)
        _sync(target.parent)
    except OSError as error:
        raise disk_error(error, target) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """A temporary file beside `target` that takes its place when the block ends, and vanishes when it fails.

    Raises:
        SaerlError: `disk_full`, `not_writable`.
    """
    made: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        os.close(handle)
        made = Path(name)
        yield made
        _sync(made)
        made.replace(target)
    except OSError as error:
        raise disk_error(error, target) from error
    finally:
        if made is not None:
            made.unlink(missing_ok=True)


def write_whole(target: Path, content: str | bytes) -> None:
    """Writes a file so that a reader sees the old one or the new one, never a part.

    Raises:
        SaerlError: `disk_full`, `not_writable`.
    """
    with new_file(target) as made:
        made.write_bytes(content.encode() if isinstance(content, str) else content)


def file_digest(path: Path) -> str:
    """SHA-256 in hex of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """SHA-256 in hex over the names and bytes of all files below a folder; of a file: over its bytes."""
    if folder.is_file():
        return file_digest(folder)
    sha = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        sha.update(f"{path.relative_to(folder).as_posix()}\0{file_digest(path)}\0".encode())
    return sha.hexdigest()


def size_bytes(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def disk_error(error: Exception, place: Path) -> SaerlError:
    """What the disk refused, in words: an OSError, or what a library makes of one."""
    remedy = "Make room on the disk (saerl doctor shows how much there is) or give write permission, then run again."
    is_full = getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error)
    return SaerlError("disk_full" if is_full else "not_writable", f"{error}.", where=str(place), remedy=remedy)


def _take_place(folder: Path, target: Path) -> None:
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


def _sync(path: Path) -> None:
    """Makes sure that a file or folder is on the disk and not only in memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
