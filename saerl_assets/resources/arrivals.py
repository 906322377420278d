"""From a file that has arrived, or a source that has changed, to a registered version: exactly once, killed wherever.

Belongs here: which version an arrival becomes, and registering it. Does not belong here: when it happens (automation),
where files lie (storage.inbox), building the version.

What is to be done is written down before anything is done, and every step after that can be done again: files that were
moved stay where they are, the same spec registered again changes nothing, and a partition or a record is there once.
Whoever finds what was written down finishes it first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saerl_assets.domain.arrivals import newest_keys, next_key, split_key
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.spec import VersionSpec, canonical_json, from_canonical, parse_spec
from saerl_assets.domain.spec_draft import N_SAMPLED_ROWS, draft_key, draft_spec
from saerl_assets.storage.inbox import DEFAULT_SPEC, Inbox, Intent, check_name
from saerl_assets.storage.locks import locked
from saerl_assets.storage.sources import ResolvedSource, read_source, resolve_source

if TYPE_CHECKING:
    from saerl_assets.resources.home import HomeResource
    from saerl_assets.storage.catalog import Catalog, Version

AddPartition = Callable[[str], None]
"""Makes a version a partition of Dagster."""

_KEY_LINE = re.compile(r"^\s*key\s*=", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """What became of an arrival."""

    name: str
    key: str | None
    """The version that it became, or whose it already was; none where it was set aside."""
    words: str


class Arrivals:
    """Taking arrivals in, one after the other, for all processes of a home."""

    def __init__(self, home: HomeResource, add_partition: AddPartition, notify: Callable[[str], None]) -> None:
        self._home = home
        self._add_partition = add_partition
        self._notify = notify
        self.inbox = Inbox(home.open())

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Holds every other process back, and finishes what one that died began."""
        with locked(self.inbox.lock, exclusive=True, purpose="taking in arrivals", notify=self._notify):
            begun = self.inbox.claimed()
            if begun is not None:
                self._notify(f"Finishing {begun.name}, which was begun before: version {begun.key}.")
                self._finish(begun)
            yield

    def take_file(self, name: str) -> Outcome:
        """Makes a version of a data file of the inbox. One that cannot be read is set aside with the reason.

        Only within `alone`.
        """
        if name not in {seen.name for seen in self.inbox.waiting()}:
            return Outcome(name, None, "It is no longer in the inbox.")
        try:
            intent = self._intent(name)
        except SaerlError as error:
            return self._set_aside([name, *self._with_it(name)], name, error)
        self.inbox.forget(intent.key)  # files of a version of this key that is no longer registered
        self.inbox.claim(intent)
        return self._finish(intent)

    def take_version(self, key: str) -> Outcome:
        """Opens the next version of a watched source, if what it stands for is in none yet.

        Only within `alone`.

        Raises:
            SaerlError: What is wrong with the source.
        """
        catalog = self._home.catalog()
        name, _ = split_key(key)
        known = catalog.keys()
        key = newest_keys(known).get(name, key)
        newest = catalog.get(key)
        if not newest.spec.data.watch:
            return Outcome(key, None, f"{key} does not watch its source any more.")
        now = resolve_source(newest.spec.data.source, newest.folder)
        same = _same_data(catalog, name, now.digest)
        if same is not None:
            return Outcome(key, same, f"{same} has these bytes already.")
        following = next_key(key, known)
        spec = _continued(newest.spec, following, key)
        intent = Intent(following, key, canonical_json(spec), str(newest.folder))
        self.inbox.claim(intent)
        return self._finish(intent)

    def _finish(self, intent: Intent) -> Outcome:
        """Does what was written down. Only an arrival that turns out to be impossible is set aside."""
        try:
            self.inbox.carry_out(intent)
            version = self._home.catalog().register(from_canonical(intent.spec), Path(intent.folder))
        except SaerlError as error:
            if error.code in {"disk_full", "not_writable"}:  # it may well go tomorrow
                raise
            places = [place for place in intent.moves.values() if (self.inbox.folder / place).exists()]
            outcome = (
                self._set_aside(places[::-1], intent.name, error)
                if places
                else Outcome(intent.name, None, f"not taken: {error}")
            )
            self.inbox.disclaim()
            return outcome
        self._add_partition(version.key)
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        self.inbox.record(version.key, intent.name, version.digest, now)
        self.inbox.disclaim()
        return Outcome(intent.name, version.key, f"registered as {version.key}, spec {version.digest[:12]}")

    def _set_aside(self, names: list[str], name: str, error: SaerlError) -> Outcome:
        place = self.inbox.reject(names, error)
        reason = f"{error.problem} {error.remedy} [{error.code}]"
        return Outcome(name, None, f"set aside as {self._home.open().relative(place)}: {reason}")

    def _with_it(self, name: str) -> list[str]:
        """The spec beside a data file and the files that it names."""
        own = self.inbox.own_spec(name)
        if own is None:
            return []
        return [own.name, *sorted(self.inbox.companions(own))]

    def _intent(self, name: str) -> Intent:
        """Decides which version a data file becomes.

        Raises:
            SaerlError: What is wrong with the file, its name or its spec; `already_taken`.
        """
        folder = self.inbox.folder
        for each in (name, *self._with_it(name)):
            check_name(each)
            if (folder / each).is_symlink():
                remedy = "Copy the file itself into the inbox."
                raise SaerlError("source_is_link", "This is a link.", where=each, remedy=remedy)
        found = resolve_source(f"path:{name}", folder)
        values = [row.value for row in islice(read_source(found), N_SAMPLED_ROWS)]
        if not any(value is not None for value in values):
            problem = f"None of its first {len(values):,} rows can be read."
            remedy = "Look at its first lines: each must hold one JSON object, or the columns of a table."
            raise SaerlError("source_unreadable", problem, where=name, remedy=remedy)
        own = self.inbox.own_spec(name)
        return self._as_its_spec_says(name, own) if own else self._as_one_more(name, found)

    def _as_its_spec_says(self, name: str, own: Path) -> Intent:
        """A file with a spec of its own is the version that the spec names."""
        text = _read(own)
        wanted = parse_spec(text, own.name, {"data": {"source": f"path:{name}"}})
        beside = self._with_it(name)
        moved = {each: f"taken/{wanted.key}/{each}" for each in [*beside[::-1], name]}
        spec = _moved(wanted, moved)
        catalog = self._home.catalog()
        known = catalog.keys()
        if wanted.key in known:
            problem = f"{wanted.key!r} is registered already; a version never changes."
            following = next_key(wanted.key, known)
            remedy = f"Name it {following!r}, with parent = {wanted.key!r}, and put both files into the inbox again."
            raise SaerlError("version_exists", problem, where=f"{own.name}: key", remedy=remedy)
        if wanted.parent is not None and wanted.parent not in known:
            remedy = f"Register it first, or name one of: {', '.join(known) or 'none yet'}."
            problem = f"The parent {wanted.parent!r} is not registered."
            raise SaerlError("unknown_parent", problem, where=f"{own.name}: parent", remedy=remedy)
        return Intent(spec.key, name, canonical_json(spec), str(self.inbox.folder), moved)

    def _as_one_more(self, name: str, found: ResolvedSource) -> Intent:
        """A file without a spec is the next version of its name, by the default spec or by a drafted one."""
        catalog = self._home.catalog()
        known = catalog.keys()
        default = self.inbox.folder / DEFAULT_SPEC
        text = _read(default) if default.is_file() else ""
        first = draft_key(f"path:{name}")
        if _KEY_LINE.search(text):
            first = parse_spec(text, DEFAULT_SPEC, {"data": {"source": f"path:{name}"}}).key
        base, _ = split_key(first)
        same = _same_data(catalog, base, found.digest)
        if same is not None:
            problem = f"Its bytes are those of {same}."
            remedy = f"Nothing is to be done. To read them otherwise, put a spec beside it: {name}.toml"
            raise SaerlError("already_taken", problem, where=name, remedy=remedy)
        key, before = next_key(first, known), newest_keys(known).get(base)
        place = f"taken/{key}/{name}"
        drafted = draft_spec(read_source(found), source=f"path:{place}", key=key) if not text else ""
        changes: dict[str, Any] = {"key": key, "data": {"source": f"path:{place}"}}
        spec = parse_spec(text or drafted, DEFAULT_SPEC if text else f"{key}.toml", changes)
        if before is not None and spec.parent is None and catalog.get(before).spec.reader == spec.reader:
            spec = _continued(spec, key, before)
        texts = {f"taken/{key}/{key}.toml": text or drafted}
        return Intent(key, name, canonical_json(spec), str(self.inbox.folder), {name: place}, texts)


def take_in(arrivals: Arrivals, names: list[str], watched: list[str]) -> Iterator[Outcome]:
    """Takes files of the inbox in, in their order, then opens versions of watched sources that have changed.

    A watched source that is out of reach does not hold the others back; the first such error is raised at the end.

    Raises:
        SaerlError: `disk_full` and the like, or what is wrong with a watched source.
    """
    first: SaerlError | None = None
    with arrivals.alone():
        for name in names:
            yield arrivals.take_file(name)
        for key in watched:
            try:
                yield arrivals.take_version(key)
            except SaerlError as error:
                first = first or error
                yield Outcome(key, None, f"not looked at: {error}")
    if first is not None:
        raise first


def _same_data(catalog: Catalog, name: str, digest: str) -> str | None:
    """The version of this name that has the same data."""
    keys = [key for key in catalog.keys() if split_key(key)[0] == name]  # noqa: SIM118 - a method of the catalog
    versions: list[Version] = [catalog.get(key) for key in keys]
    return next((version.key for version in versions if version.sources["data"].digest == digest), None)


def _continued(spec: VersionSpec, key: str, parent: str) -> VersionSpec:
    """The spec as a child of the version before: it takes the parent's SAE over instead of training one more."""
    sae = spec.sae.model_copy(update={"source": ("auto",)}) if spec.sae.source == ("train",) else spec.sae
    return from_canonical(canonical_json(spec.model_copy(update={"key": key, "parent": parent, "sae": sae})))


def _moved(spec: VersionSpec, moved: dict[str, str]) -> VersionSpec:
    """The spec with the new places of the files that it names."""
    places = {f"path:{origin}": f"path:{place}" for origin, place in moved.items()}
    return VersionSpec.model_validate(_replaced(spec.model_dump(mode="json"), places))


def _replaced(value: Any, places: dict[str, str]) -> Any:  # noqa: ANN401 - what JSON can hold
    if isinstance(value, str):
        return places.get(value, value)
    if isinstance(value, dict):
        return {key: _replaced(each, places) for key, each in value.items()}
    return [_replaced(each, places) for each in value] if isinstance(value, list) else value


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = "Write the spec as a TOML file in UTF-8."
        raise SaerlError("spec_unreadable", f"{error}.", where=path.name, remedy=remedy) from error
