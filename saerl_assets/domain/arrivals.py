"""Files that arrive in a folder: which of them are whole, and in which order they came.

Belongs here: comparing two looks at a folder, and numbering the versions of a name. Does not belong here: looking
(storage.inbox), taking anything in.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

MAX_ATTEMPTS = 3
"""After so many runs that failed to take a file in, it is set aside."""


@dataclass(frozen=True)
class Seen:
    """A file as one look at the folder finds it."""

    name: str
    n_bytes: int
    modified_ns: int
    changed_ns: int
    """When its name or bytes last changed on this disk, which moving it here does too."""


@dataclass(frozen=True)
class Watched:
    """A file as it is remembered between two looks."""

    n_bytes: int
    modified_ns: int
    number: int
    """Files are taken in by it: the look at which it was first seen, then the order within that look."""
    n_attempts: int = 0

    def as_list(self) -> list[int]:
        """For a cursor."""
        return [self.n_bytes, self.modified_ns, self.number, self.n_attempts]


def cursor_of(remembered: Mapping[str, Watched]) -> str:
    """What is remembered, by name, as a sensor's cursor: JSON."""
    return json.dumps({name: watched.as_list() for name, watched in remembered.items()}, sort_keys=True)


def remembered_in(cursor: str | None) -> dict[str, Watched]:
    """What a cursor holds, by name; nothing where there is none yet."""
    return {name: Watched(*numbers) for name, numbers in json.loads(cursor or "{}").items()}


def look_again(before: Mapping[str, Watched], now: Iterable[Seen]) -> tuple[dict[str, Watched], list[str]]:
    """Compares a folder with how it was at the look before.

    Nothing depends on what a clock says: a file is whole if neither its size nor its time of change is another than at
    the look before.

    Args:
        before: What was remembered then.
        now: The files that are there.

    Returns:
        What to remember, and the names of the files that are whole, in order of arrival: by the look at which each was
        first seen, then by when it came into the folder, then by name.
    """
    remembered: dict[str, Watched] = {}
    whole = []
    following = 1 + max((watched.number for watched in before.values()), default=0)
    for seen in sorted(now, key=lambda each: (each.changed_ns, each.name)):
        known = before.get(seen.name)
        same = known is not None and (known.n_bytes, known.modified_ns) == (seen.n_bytes, seen.modified_ns)
        if known is None:
            remembered[seen.name] = Watched(seen.n_bytes, seen.modified_ns, following)
            following += 1
        elif same:
            remembered[seen.name] = known
            whole.append(seen.name)
        else:
            remembered[seen.name] = Watched(seen.n_bytes, seen.modified_ns, known.number)
    return remembered, sorted(whole, key=lambda name: remembered[name].number)


def newest_keys(keys: Iterable[str]) -> dict[str, str]:
    """By name, the key with the highest number: `math` to `math-v12`."""
    newest: dict[str, tuple[int, str]] = {}
    for key in keys:
        name, number = split_key(key)
        newest[name] = max(newest.get(name, (0, "")), (number, key))
    return {name: key for name, (_, key) in newest.items()}


def next_key(key: str, known: Sequence[str]) -> str:
    """The key itself where no version of its name is known, else that of the next one."""
    name, _ = split_key(key)
    newest = newest_keys(known).get(name)
    return key if newest is None else f"{name}-v{split_key(newest)[1] + 1}"


def split_key(key: str) -> tuple[str, int]:
    """Name and number of a version key."""
    name, _, number = key.rpartition("-v")
    return name, int(number)
