"""Sources of prompts and labels: from the string in a spec to rows.

Belongs here: `path:`, `hf:` and `gym:`, what each stands for and by which digest, what is wrong with one.
Does not belong here: the formats (source_files), the hub
(hub_datasets), what a row means (domain).
"""

from __future__ import annotations

import difflib
import hashlib
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pyarrow.parquet as pq

from saerl_assets.disk import file_digest, folder_digest, placed, size_bytes
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.fields import SourceRow
from saerl_assets.domain.gym import TaskMix, generate_rows, parse_tasks
from saerl_assets.domain.spec import digest
from saerl_assets.storage import source_files
from saerl_assets.storage.csv_files import read_csv
from saerl_assets.storage.hub_datasets import HubName, read_folder, read_hub, resolve_commit

_FILE_KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
_READERS = {
    "jsonl": source_files.read_jsonl,
    "json": source_files.read_json,
    "csv": read_csv,
    "parquet": source_files.read_parquet,
}
_UNFINISHED = ("~", ".tmp", ".temp", ".part", ".partial", ".crdownload", ".download", ".filepart", ".swp", ".lock")
_OTHER_FORMATS = (
    (b"PAR1", "Parquet", "Name it .parquet."),
    (b"\x1f\x8b", "gzip", "Unpack it with gunzip."),
    (b"PK\x03\x04", "a ZIP archive or a spreadsheet", "Unpack it, or export it as CSV."),
    (b"\x28\xb5\x2f\xfd", "Zstandard", "Unpack it with zstd -d."),
    (b"\xff\xfe", "UTF-16 text", "Save it as UTF-8."),
    (b"\xfe\xff", "UTF-16 text", "Save it as UTF-8."),
)


@dataclass(frozen=True)
class ResolvedSource:
    """What a source string stands for, as it is recorded with a version."""

    kind: str
    """`jsonl`, `json`, `csv`, `parquet`, `folder`, `gym`, `hf` or `hf_folder`."""
    location: str
    """Absolute path (`hf_folder`: with #split), or name on the hub with its commit and split."""
    digest: str
    """SHA-256 over the bytes; `folder`: over `files`; `gym`: over the file's bytes and reasoning-gym's version; `hf`:
    the commit."""
    n_bytes: int
    """Size on disk; 0 for `hf`."""
    files: list[list[str]] = field(default_factory=list)
    """`folder`: name and digest of each file, sorted by name. Files that are added later are none of them."""


def resolve_source(source: str, folder: Path) -> ResolvedSource:
    """Finds a source and names it by content. Only the start of a file is looked at, beside its digest.

    Args:
        source: `path:FILE`, `path:FOLDER` with data files in it, `hf:org/name@revision#split`, `hf:FOLDER#split` or
            `gym:FILE`.
        folder: Where relative paths start.

    Raises:
        SaerlError: `source_syntax`, `source_missing`, `source_is_folder`, `folder_empty`, `source_unreadable`,
            `source_empty`, `source_type`, `path_invalid`, or what is wrong with a hub name or a task mix.
    """
    scheme, separator, name = source.partition(":")
    if not separator or scheme not in {"path", "hf", "gym"} or not name:
        remedy = "Write path:FILE, hf:org/name@revision or gym:FILE."
        if not separator or len(scheme) == 1:  # a drive letter
            remedy = f"Write path:{source} for a file."
        raise SaerlError("source_syntax", f"{source!r} is not a source.", where=source, remedy=remedy)
    if scheme == "hf":
        return _resolve_hub(name, folder)
    path = placed(name, folder).resolve()
    try:
        if scheme == "path" and path.is_dir():
            return _resolve_folder(path)
        _check_file(path)
        return _resolve_mix(path) if scheme == "gym" else _resolve_file(path)
    except OSError as error:  # a folder that may not be listed, a disk that gives up
        remedy = "Give yourself permission to read it, and look at the disk."
        raise SaerlError("source_unreadable", f"It cannot be read: {error}.", where=str(path), remedy=remedy) from error


def read_source(resolved: ResolvedSource) -> Iterator[SourceRow]:
    """The rows of a source, one after the other. A row that cannot be read is a row with a problem.

    Raises:
        SaerlError: The file is gone or is not what it was.
    """
    if resolved.kind == "hf":
        return read_hub(resolved.location)
    location, _, part = (
        resolved.location.rpartition("#") if resolved.kind == "hf_folder" else (resolved.location, "", "")
    )
    path = Path(location)
    if resolved.kind == "folder":
        return _folder_rows(resolved)
    if resolved.kind == "hf_folder":
        return read_folder(path, part)
    _check_file(path)
    return _gym_rows(path) if resolved.kind == "gym" else _READERS[resolved.kind](path)


def estimate_rows(resolved: ResolvedSource) -> int:
    """About how many rows a source has; 0 where that is not known without reading it."""
    if resolved.kind == "gym":
        return _read_mix(Path(resolved.location)).n_rows
    if resolved.kind == "folder":
        files = (Path(resolved.location) / name for name, _ in resolved.files)
        kinds = ((file, _file_kind(file)) for file in files)
        return sum(source_files.estimate_rows(file, kind) for file, kind in kinds if kind != "json")
    if resolved.kind in {"jsonl", "csv", "parquet"}:
        return source_files.estimate_rows(Path(resolved.location), resolved.kind)
    return 0


def still_there(then: ResolvedSource, source: str, folder: Path) -> ResolvedSource:
    """What a source stands for now: of a folder, the files that it had then, wherever more were added.

    Raises:
        SaerlError: As `resolve_source`.
    """
    if then.kind != "folder":
        return resolve_source(source, folder)
    return _resolve_folder(Path(then.location), {name for name, _ in then.files})


def is_unfinished(name: str) -> bool:
    """Whether a file's name says that somebody is still writing it, or that it is nobody's data."""
    return name.startswith((".", "~")) or name.lower().endswith(_UNFINISHED)


def _resolve_folder(path: Path, names: set[str] | None = None) -> ResolvedSource:
    """A folder by the data files in it; those that somebody is still writing are not there yet.

    Raises:
        SaerlError: `folder_empty`, `source_missing` for a file of `names`, or what is wrong with a file.
    """
    whole = (file for file in path.iterdir() if not is_unfinished(file.name))
    found = sorted(file for file in whole if file.suffix.lower() in _FILE_KINDS)
    files = found if names is None else [path / name for name in sorted(names)]
    if not files:
        remedy = f"Put data files into it: {', '.join(_FILE_KINDS)}; or name a folder in it."
        raise SaerlError("folder_empty", "There is no data file in this folder.", where=str(path), remedy=remedy)
    resolved = [_resolve_file(file) for file in files]
    listed = [[file.name, each.digest] for file, each in zip(files, resolved, strict=True)]
    n_bytes = sum(each.n_bytes for each in resolved)
    return ResolvedSource("folder", str(path), digest(listed), n_bytes, listed)


def _resolve_file(path: Path) -> ResolvedSource:
    _check_file(path)
    kind = _file_kind(path)
    _check_format(path, kind)
    return ResolvedSource(kind, str(path), file_digest(path), size_bytes(path))


def _resolve_mix(path: Path) -> ResolvedSource:
    _read_mix(path)
    named = hashlib.sha256(path.read_bytes() + b"\0" + _gym_version().encode()).hexdigest()
    return ResolvedSource("gym", str(path), named, size_bytes(path))


def _folder_rows(resolved: ResolvedSource) -> Iterator[SourceRow]:
    """The rows of its files in the order of their names; positions and lines count on from file to file."""
    position = line = 0
    for name, _ in resolved.files:
        path = Path(resolved.location) / name
        _check_file(path)
        before = line
        for row in _READERS[_file_kind(path)](path):
            line = before + row.line
            yield replace(row, position=position, line=line)
            position += 1


def _resolve_hub(name: str, folder: Path) -> ResolvedSource:
    path_text, _, part = name.partition("#")
    path = placed(path_text, folder).resolve()
    if path.is_dir():
        return ResolvedSource("hf_folder", f"{path}#{part or 'train'}", folder_digest(path), size_bytes(path))
    hub_name = HubName.parse(name)
    commit = resolve_commit(hub_name)
    return ResolvedSource("hf", hub_name.pinned(commit), commit, 0)


def _check_file(path: Path) -> None:
    """Holds a path against everything that a file must be before anybody reads it."""
    where = str(path)
    if path.is_dir():
        inside = sorted(file.name for file in path.iterdir() if file.suffix in _FILE_KINDS)
        remedy = f"Name one of its files: {', '.join(inside[:5])}." if inside else "Name a file."
        raise SaerlError("source_is_folder", "This is a folder.", where=where, remedy=remedy)
    if not path.exists():
        beside = sorted(file.name for file in path.parent.iterdir()) if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, beside, n=1)
        remedy = f"Did you mean {close[0]!r}?" if close else "A relative path starts at the spec's folder."
        raise SaerlError("source_missing", "There is no such file.", where=where, remedy=remedy)
    if not path.is_file() or not os.access(path, os.R_OK):
        remedy = "Give yourself permission to read it."
        raise SaerlError("source_unreadable", "The file cannot be read.", where=where, remedy=remedy)
    if path.stat().st_size == 0:
        raise SaerlError("source_empty", "The file is empty.", where=where, remedy="Name a file with rows.")


def _file_kind(path: Path) -> str:
    kind = _FILE_KINDS.get(path.suffix.lower())
    if kind is None:
        remedy = f"Known: {', '.join(_FILE_KINDS)}."
        problem = f"Files named {path.suffix!r} are not known." if path.suffix else "The file's name says no format."
        raise SaerlError("source_type", problem, where=str(path), remedy=remedy)
    return kind


def _check_format(path: Path, kind: str) -> None:
    """Finds out early that a file is not what its name says."""
    if kind == "parquet":
        try:
            pq.read_metadata(path)
        except source_files.PARQUET_FAILURES as error:
            raise source_files.parquet_error(path, error) from error
        return
    with path.open("rb") as file:
        start = file.read(4)
    for mark, name, remedy in _OTHER_FORMATS:
        if start.startswith(mark):
            problem = f"This is {name}, not {path.suffix[1:].upper()}."
            raise SaerlError("source_type", problem, where=str(path), remedy=remedy)


def _read_mix(path: Path) -> TaskMix:
    try:
        return parse_tasks(tomllib.loads(path.read_bytes().decode("utf-8-sig")))
    except (ValueError, RecursionError) as error:  # beside TOML's own, a number or a nesting beyond what Python reads
        remedy = "Correct the line that it names."
        raise SaerlError("tasks_invalid", f"This is not TOML: {error}.", where=str(path), remedy=remedy) from error
    except SaerlError as error:
        where = f"{path}: {error.where}" if error.where else str(path)
        raise SaerlError(error.code, error.problem, where=where, remedy=error.remedy) from error


def _gym_rows(path: Path) -> Iterator[SourceRow]:
    for position, value in enumerate(generate_rows(_read_mix(path))):
        yield SourceRow(position, position + 1, value)


def _gym_version() -> str:
    try:
        return version("reasoning-gym")
    except PackageNotFoundError as error:
        raise SaerlError(
            "gym_missing",
            "reasoning-gym, which makes the tasks, is not installed.",
            remedy="pip install 'saerl_assets[demo]'",
        ) from error
