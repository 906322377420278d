"""Folders that appear whole or not at all.

Belongs here: the one way in which models, SAEs and checkpoints are put on disk. Does not belong here: what is
in them.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saerl_assets.domain.errors import SaerlError


@contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its name at the end of the block.

    What was at `target` before is replaced. Where another process was faster, either one's folder stays,
    whole. If the block raises, nothing remains of the temporary folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield place
        place.chmod(0o755)
        for file in place.rglob("*"):
            _flush(file)
        _flush(place)
        _put(place, target)
        _flush(target.parent)
    except OSError as error:
        raise disk_error(error, target) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def disk_error(error: Exception, place: Path) -> SaerlError:
    """What the disk refused, in words: an OSError, or what a library makes of one."""
    remedy = "Make room on the disk, or give write permission, then run again."
    is_full = getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error)
    code = "disk_full" if is_full else "not_writable"
    return SaerlError(code, f"{error}.", where=str(place), remedy=remedy)


def write_whole(target: Path, content: str) -> None:
    """Writes a text file that appears whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    with os.fdopen(handle, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(name).replace(target)


def _put(place: Path, target: Path) -> None:
    try:
        place.replace(target)
    except OSError:  # a folder that holds something cannot be replaced in one step
        old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            target.replace(old / "old")
            place.replace(target)
        except OSError:
            if not target.is_dir():
                raise
        finally:
            shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
