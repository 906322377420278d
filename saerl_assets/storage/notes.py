"""What sensors may know of a version without opening the warehouse: one small file per version.

Belongs here: writing and reading these notes. Does not belong here: anything that only a run needs, which is in the
table `versions`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from saerl_assets.disk import write_whole
from saerl_assets.storage.home import Home


@dataclass(frozen=True)
class Note:
    """A version as far as sensors care."""

    key: str
    parent: str | None
    source: str
    """`data.source` of the spec."""
    folder: str
    """Where a relative path in it starts."""
    digest: str
    """Of the data when it was registered."""
    watch: bool
    follows_feedback: bool


def write_note(home: Home, note: Note) -> None:
    """Notes a version, whole or not at all."""
    write_whole(home.notes / f"{note.key}.json", json.dumps(asdict(note), sort_keys=True))


def read_notes(home: Home) -> dict[str, Note]:
    """The notes by version key. One that cannot be read, such as another release's, is none."""
    found = {}
    for path in sorted(home.notes.glob("*.json")) if home.notes.is_dir() else []:
        try:
            note = Note(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue
        found[note.key] = note
    return found


def remove_note(home: Home, key: str) -> None:
    """Forgets a version."""
    (home.notes / f"{key}.json").unlink(missing_ok=True)
