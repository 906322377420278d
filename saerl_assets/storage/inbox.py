"""The inbox: files that arrive, those that were taken, those that could not be, and what is being done right now.

Belongs here: the places and moves of files. Does not belong here: what a file means (resources.arrivals), when it is
looked at (automation).

    <home>/inbox/<file>                     waits; `<name>.toml` beside `<name>.jsonl` is its spec
    <home>/inbox/default.toml               the spec of files that have none; optional
    <home>/inbox/labels/<version>/<file>    labels or a training log for a version that is registered; a folder between
                                            the two is the name of the training
    <home>/inbox/taken/<version>/           the file that became this version, with `arrival.json`
    <home>/inbox/taken/<version>/labels/    files of labels and training logs that the version was given
    <home>/inbox/rejected/                  what could not be taken, each with `<file>.reason.txt`
    <home>/inbox/.taking.json               the arrival that is being taken in; whoever finds it finishes it
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from shutil import copyfile
from typing import Any
from urllib.parse import quote, unquote

from saerl_assets.disk import new_file, write_whole
from saerl_assets.domain.arrivals import Seen
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.spec import KEY_PATTERN
from saerl_assets.storage.home import Home
from saerl_assets.storage.sources import is_unfinished, resolve_source

DEFAULT_SPEC = "default.toml"
RECORD = "arrival.json"
UNNAMED = "-"
"""Folder of the logs of trainings without a name."""

MAX_NAME_BYTES = 200
"""Of a file's name, which is lengthened when it is kept; file systems take 255."""


@dataclass(frozen=True)
class Intent:
    """An arrival that is decided upon: everything that is needed to finish it, whoever does."""

    key: str
    name: str
    """The file, or the version whose source has changed."""
    spec: str
    """Canonical, JSON."""
    folder: str
    """Where relative paths in the spec start."""
    moves: dict[str, str] = field(default_factory=dict)
    """Files by their place below the inbox, and the place below it where each goes; the data file last."""
    texts: dict[str, str] = field(default_factory=dict)
    """Files that are written, by their place below the inbox."""


@dataclass(frozen=True)
class Arrival:
    """A version that was registered by itself and is to be built."""

    key: str
    name: str
    number: int
    """Counted over all arrivals of the home, in their order."""
    spec_digest: str
    registered_at: str


@dataclass(frozen=True)
class LabelFile:
    """A file of labels or a training log that a version was given."""

    path: Path
    name: str
    """As it was called when it came."""
    run_name: str
    """What the training is called; empty where only the log can say."""


class Inbox:
    """The folder `inbox/` of a home."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.folder = home.inbox
        self.lock = self.folder / ".lock"

    def waiting(self) -> list[Seen]:
        """Data files that are there, whole or not; specs and the files that they name are none."""
        named = self.named_by_specs()
        return [
            seen
            for seen in _look(self.folder)
            if not seen.name.endswith((".toml", ".reason.txt")) and seen.name not in named
        ]

    def waiting_labels(self) -> list[Seen]:
        """Files of labels and training logs, as `<version>/<file>` or `<version>/<training>/<file>`."""
        labels = self.folder / "labels"
        return [
            replace(seen, name=f"{folder.relative_to(labels).as_posix()}/{seen.name}")
            for pattern in ("*", "*/*")
            for folder in sorted(labels.glob(pattern))
            for seen in _look(folder)
        ]

    def spec_of(self, name: str) -> Path | None:
        """The spec beside a data file, else the default spec, else none."""
        own = self.own_spec(name)
        default = self.folder / DEFAULT_SPEC
        return own or (default if default.is_file() else None)

    def own_spec(self, name: str) -> Path | None:
        """The spec beside a data file: `<name>.toml` or `<file>.toml`."""
        there = {seen.name for seen in _look(self.folder)} - {DEFAULT_SPEC}
        names = (Path(name).with_suffix(".toml").name, f"{name}.toml")
        return next((self.folder / each for each in names if each in there), None)

    def named_by_specs(self) -> set[str]:
        """Files of the inbox that a spec in it names, such as label files."""
        return {name for path in self.folder.glob("*.toml") for name in self.companions(path)}

    def companions(self, spec: Path) -> set[str]:
        """Files beside a spec that it names as `path:NAME`; none of a spec that cannot be read.

        Files of our own, which have hidden names, are none of them.
        """
        return _named_by(spec) & {seen.name for seen in _look(self.folder)}

    def claim(self, intent: Intent) -> None:
        """Says what is being done, before it is done."""
        write_whole(self._journal, json.dumps(asdict(intent), sort_keys=True))

    def claimed(self) -> Intent | None:
        """What somebody began and did not finish."""
        try:
            return Intent(**json.loads(self._journal.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            problem = f"What was begun cannot be read: {error}."
            remedy = "Delete this file. What it was about is in the inbox, or below taken/ and can be put there again."
            raise SaerlError("inbox_damaged", problem, where=str(self._journal), remedy=remedy) from error

    def disclaim(self) -> None:
        """Says that it is done, or that it never will be."""
        self._journal.unlink(missing_ok=True)

    def carry_out(self, intent: Intent) -> None:
        """Puts the files of an arrival where it says; what was put there before stays."""
        for place, text in intent.texts.items():
            write_whole(self.folder / place, text)
        for origin, place in intent.moves.items():
            target = self.folder / place
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                (self.folder / origin).replace(target)

    def record(self, key: str, name: str, spec_digest: str, registered_at: str) -> Arrival:
        """Notes that a version has arrived, once."""
        known = {arrival.key: arrival for arrival in self.arrivals()}
        if key in known and known[key].spec_digest == spec_digest:
            return known[key]
        number = 1 + max((arrival.number for arrival in known.values()), default=0)
        arrival = Arrival(key, name, number, spec_digest, registered_at)
        write_whole(self.folder / "taken" / key / RECORD, json.dumps(asdict(arrival), sort_keys=True))
        return arrival

    def forget(self, key: str) -> None:
        """Puts the files of a version that was deleted aside, so that its key can be used again. None is removed."""
        folder = self.folder / "taken" / key
        if folder.is_dir():
            (folder / RECORD).unlink(missing_ok=True)
            folder.replace(_free(folder.parent, f"{key}.deleted"))

    def arrivals(self) -> list[Arrival]:
        """Every version that has arrived, in order."""
        found = []
        for path in (self.folder / "taken").glob(f"*/{RECORD}"):
            try:
                found.append(Arrival(**json.loads(path.read_text(encoding="utf-8"))))
            except (OSError, ValueError, TypeError):
                continue
        return sorted(found, key=lambda arrival: arrival.number)

    def reject(self, names: list[str], error: SaerlError) -> Path:
        """Sets files aside with the reason in words, which is written first; returns the place of the first one.

        Args:
            names: Places below the inbox; the first one is the file that the reason is about.
            error: What is wrong with it, and what to do.
        """
        rejected = self.folder / "rejected"
        first = _free(rejected, _shortened(Path(names[0]).name))
        where = f"{error.where}: " if error.where else ""
        reason = f"code: {error.code}\nproblem: {where}{error.problem}\nwhat to do: {error.remedy}\n"
        write_whole(first.with_name(f"{first.name}.reason.txt"), reason)
        for name in names:
            origin = self.folder / name
            if origin.exists() or origin.is_symlink():
                origin.replace(first if name == names[0] else _free(rejected, _shortened(origin.name)))
        return first

    def add_labels(self, key: str, source: Path, *, run_name: str = "", move: bool = False) -> Path:
        """Gives a version a file of labels or a training log, once for each content; returns its place.

        Args:
            key: The version.
            source: The file.
            run_name: What the training is called, where the log does not say so.
            move: Takes the file away from where it is, instead of copying it.

        Raises:
            SaerlError: `unknown_version`, `name_refused`, `source_missing`, `source_type`, or what is wrong with the
                file.
        """
        check_name(source.name)
        training = _folder_of(run_name)
        found = resolve_source(f"path:{source.absolute()}", source.parent)
        folder = self.labels_of(key)
        present = next(folder.glob(f"*/{found.digest[:16]}-*"), None)
        target = present or folder / training / f"{found.digest[:16]}-{source.name}"
        if present is None:
            with new_file(target) as made:
                copyfile(source, made)
        if move:
            source.unlink()
        return target

    def labels(self, key: str) -> list[LabelFile]:
        """The files of labels and training logs that a version was given, in the order in which they came."""
        files = [path for path in self.labels_of(key).glob("*/*") if not is_unfinished(path.name)]
        return [
            LabelFile(path, path.name.partition("-")[2], "" if (run := unquote(path.parent.name)) == UNNAMED else run)
            for path in sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name))
        ]

    def labels_of(self, key: str) -> Path:
        """The folder with the files of labels and training logs that a version was given.

        Raises:
            SaerlError: `unknown_version` for what is no version key.
        """
        if not KEY_PATTERN.fullmatch(key):
            remedy = "Name the folder after a registered version, such as math-v1."
            raise SaerlError("unknown_version", f"{key!r} is no version key.", where="inbox/labels", remedy=remedy)
        return self.folder / "taken" / key / "labels"

    @property
    def _journal(self) -> Path:
        return self.folder / ".taking.json"


def check_name(name: str) -> None:
    """Whether a file of this name can be kept.

    Raises:
        SaerlError: `name_refused`.
    """
    problem = ""
    if name == RECORD:
        problem = "We keep a file of this name beside the data."
    elif not _is_text(name):
        problem = "Its name is not UTF-8."
    elif len(name.encode()) > MAX_NAME_BYTES:
        problem = f"Its name has {len(name.encode())} bytes, over {MAX_NAME_BYTES}."
    if problem:
        remedy = "Give it another name, and put it there again."
        raise SaerlError("name_refused", problem, where=name, remedy=remedy)


def _folder_of(run_name: str) -> str:
    """The name of the folder with a training's logs, one path component whatever the training is called.

    Raises:
        SaerlError: `name_refused`.
    """
    quoted = quote(run_name or UNNAMED, safe=" ") if _is_text(run_name) else ""
    if not 0 < len(quoted) <= MAX_NAME_BYTES:
        problem = "The training's name is too long." if quoted else "The training's name is not UTF-8."
        raise SaerlError(
            "name_refused", problem, where=run_name[:MAX_NAME_BYTES], remedy="Give it a shorter, plain one."
        )
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


def _is_text(name: str) -> bool:
    """Whether a name is UTF-8; other bytes are half surrogate pairs here."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shortened(name: str) -> str:
    """A name that a file can still have when more is put behind it."""
    kept = os.fsencode(name)
    if len(kept) <= MAX_NAME_BYTES:
        return name
    suffix = os.fsencode(Path(name).suffix)[-20:]
    return kept[: MAX_NAME_BYTES - len(suffix)].decode(errors="ignore") + suffix.decode(errors="ignore")


def _named_by(spec: Path) -> set[str]:
    try:
        document = tomllib.loads(spec.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return set()
    data = document.get("data")
    own = data.get("source") if isinstance(data, dict) else None
    return {
        text.removeprefix("path:")
        for text in _texts(document)
        if text.startswith("path:") and "/" not in text and text != own
    }


def _texts(value: Any) -> Iterator[str]:  # noqa: ANN401 - what TOML can hold
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _look(folder: Path) -> Iterator[Seen]:
    """The files of a folder that have a finished name. Links are files too: they are refused when they are taken."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not is_unfinished(path.name) and (path.is_symlink() or path.is_file()):
            stat = path.lstat()
            yield Seen(path.name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def _free(folder: Path, name: str) -> Path:
    """A place of this name in a folder, numbered where there is one already."""
    place, number = folder / name, 1
    while place.exists() or place.is_symlink():
        number += 1
        place = folder / f"{Path(name).stem}.{number}{Path(name).suffix}"
    return place
