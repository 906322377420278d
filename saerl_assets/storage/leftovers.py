"""What a home keeps without needing it any more, and removing it.

Belongs here: finding it, with its size and the reason. Does not belong here: when it is removed.

Nothing that a table refers to is ever among it, nor any source file, nor anything that is younger than asked for: what
a run is making right now is not referred to yet.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from saerl_assets.disk import size_bytes

if TYPE_CHECKING:
    from saerl_assets.storage.home import Home
    from saerl_assets.storage.warehouse import Warehouse

MANIFEST_DIGITS = 16
"""Of a manifest's id in the name of its exports' folder."""
_SECONDS_A_DAY = 86_400.0
_REFERRED_TO = (
    ("sae_weights", "digest"),
    ("control_saes", "digest"),
    ("clusters", "centroids_digest"),
    ("clusters", "parent_digest"),
    ("quality_probe", "digest"),
    ("artifacts", "digest"),
)


@dataclass(frozen=True)
class Leftover:
    """A file or folder that can go."""

    path: Path
    n_bytes: int
    why: str


def find_leftovers(home: Home, warehouse: Warehouse, *, busy: set[str], older_than_days: float) -> list[Leftover]:
    """Everything that can go.

    Args:
        home: The home.
        warehouse: Its warehouse, which may not be there yet.
        busy: Versions of which a run is going on or waiting; nothing of theirs goes.
        older_than_days: Nothing goes that has changed since.

    Returns:
        By path.
    """
    before = time.time() - older_than_days * _SECONDS_A_DAY
    found = [
        Leftover(path, size_bytes(path), why)
        for path, why in _candidates(home, warehouse, busy)
        if _changed_at(path) <= before
    ]
    return sorted(found, key=lambda leftover: leftover.path)


def remove(leftovers: list[Leftover]) -> int:
    """Removes them; returns the bytes that this freed. What another process was faster with is not counted."""
    freed = 0
    for leftover in leftovers:
        if leftover.path.is_dir():
            shutil.rmtree(leftover.path, ignore_errors=True)
        else:
            leftover.path.unlink(missing_ok=True)
        freed += 0 if leftover.path.exists() else leftover.n_bytes
    return freed


def _candidates(home: Home, warehouse: Warehouse, busy: set[str]) -> Iterator[tuple[Path, str]]:
    versions = _values(warehouse, "versions", "dataset_version")
    yield from (
        (path, "shards and caches that no run has touched" if path.name in versions else _no_version(path.name))
        for path in _inside(home.root / "work")
        if path.name not in busy
    )
    kept = {manifest[:MANIFEST_DIGITS] for manifest in _values(warehouse, "manifests", "manifest_id")}
    yield from ((path, "exports of a manifest that is gone") for path in _inside(home.exports) if path.name not in kept)
    yield from ((path, _no_version(path.stem)) for path in _inside(home.reports) if path.stem not in versions)
    referred = set[str]().union(*(_values(warehouse, table, column) for table, column in _REFERRED_TO))
    for kind in _inside(home.artifacts):
        if kind.name != "recipes":
            why = f"an artefact ({kind.name}) that no version refers to"
            yield from ((path, why) for path in _inside(kind) if path.name not in referred)
    yield from _torn(home)


def _no_version(key: str) -> str:
    return f"made for {key}, which is no version"


def _torn(home: Home) -> Iterator[tuple[Path, str]]:
    """Temporary files and folders of writers that were killed; see `disk.new_folder`."""
    for folder in (home.artifacts, home.exports, home.reports, home.notes):
        for path in folder.rglob(".*.*") if folder.is_dir() else []:
            yield path, "half written by a process that was killed"


def _values(warehouse: Warehouse, table: str, column: str) -> set[str]:
    """The values of a column; none where there is no warehouse yet."""
    is_there = warehouse.exists()
    return set(warehouse.rows(table, [column])[column].drop_nulls()) if is_there else set()


def _inside(folder: Path) -> Iterator[Path]:
    """What is in a folder and has no hidden name."""
    yield from (path for path in sorted(folder.iterdir()) if not path.name.startswith(".")) if folder.is_dir() else ()


def _changed_at(path: Path) -> float:
    """When the newest file in it was last changed; its own time where it holds none."""
    times = [file.lstat().st_mtime for file in path.rglob("*")] if path.is_dir() else []
    return max([*times, path.lstat().st_mtime])
