"""Datasets of the Hugging Face hub, and folders in the formats of the `datasets` library.

Belongs here: the only code that knows `datasets` and `huggingface_hub`. Does not belong here: files in other
formats (source_files).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saerl_assets.domain.errors import SaerlError, is_passing
from saerl_assets.domain.fields import SourceRow
from saerl_assets.storage.source_files import arrow_rows

_NAME = re.compile(r"(?P<name>[^@#\s]+)(?:@(?P<revision>[^@#\s]+))?(?:#(?P<split>[^@#\s]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BATCH_ROWS = 2_000


@dataclass(frozen=True)
class HubName:
    """`org/name@revision#split`, or `#configuration/split` for a dataset with several configurations."""

    name: str
    revision: str
    configuration: str | None
    split: str

    @classmethod
    def parse(cls, text: str) -> HubName:
        """Reads the name; the revision is `main` and the split `train` by default.

        Raises:
            SaerlError: `source_syntax`.
        """
        match = _NAME.fullmatch(text)
        if match is None:
            remedy = "Write hf:org/name@revision#split; revision and split can be left out."
            raise SaerlError("source_syntax", f"This names no dataset: {text!r}.", where=f"hf:{text}", remedy=remedy)
        configuration, _, split = (match["split"] or "train").rpartition("/")
        return cls(match["name"], match["revision"] or "main", configuration or None, split)

    def pinned(self, commit: str) -> str:
        """The same name with a commit as its revision."""
        part = f"{self.configuration}/{self.split}" if self.configuration else self.split
        return f"{self.name}@{commit}#{part}"


def resolve_commit(name: HubName) -> str:
    """The commit that a revision stands for: the hub's answer, offline its local cache's.

    Raises:
        SaerlError: `datasets_missing`, `hub_unknown`, `hub_offline`.
    """
    if _COMMIT.fullmatch(name.revision):
        return name.revision
    hub = _import("huggingface_hub")
    errors = _import("huggingface_hub.errors")
    where = f"hf:{name.name}@{name.revision}"
    try:
        return str(hub.HfApi().dataset_info(name.name, revision=name.revision).sha)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        remedy = "Check the spelling of name and revision; for a private dataset log in with: hf auth login"
        problem = "The hub has no such dataset or revision."
        raise SaerlError("hub_unknown", problem, where=where, remedy=remedy) from error
    except Exception as error:  # the client passes on what its HTTP library raises; there are several
        commit = _cached_commit(hub, name)
        if commit is None:
            raise SaerlError(
                "hub_offline",
                f"The hub is out of reach ({type(error).__name__}), and its local cache lacks the dataset.",
                where=where,
                remedy="Connect, or name a folder with the dataset (hf:FOLDER) or a file (path:FILE).",
                passing=True,
            ) from error
        return commit


def read_hub(pinned: str) -> Iterator[SourceRow]:
    """Rows of a dataset at a commit.

    Raises:
        SaerlError: `hub_unreadable`, with what `datasets` says.
    """
    name = HubName.parse(pinned)
    options: dict[str, Any] = {"split": name.split, "revision": name.revision}
    yield from _rows(_load(name.name, name.configuration, options, f"hf:{pinned}"))


def read_folder(folder: Path, part: str) -> Iterator[SourceRow]:
    """Rows of a folder that `save_to_disk` wrote, or of a checkout of a dataset's repository.

    Args:
        folder: The folder.
        part: `split`, or `configuration/split`.

    Raises:
        SaerlError: `hub_unreadable`, with what `datasets` says.
    """
    configuration, _, split = part.rpartition("/")
    where = f"hf:{folder}#{part}"
    if not any((folder / file).exists() for file in ("state.json", "dataset_dict.json")):
        yield from _rows(_load(str(folder), configuration or None, {"split": split}, where))
        return
    try:
        loaded = _import("datasets").load_from_disk(str(folder))
    except Exception as error:  # whatever it makes of files that are not what it wrote
        raise _unreadable(where, f"{error}".strip().rstrip(".")) from error
    if isinstance(loaded, dict):
        if split not in loaded:
            raise _unreadable(where, f"There is no split {split!r}; there are {', '.join(loaded)}")
        loaded = loaded[split]
    yield from _rows(loaded)


def _load(name: str, configuration: str | None, options: dict[str, Any], where: str) -> Any:  # noqa: ANN401 - untyped
    datasets = _import("datasets")
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, configuration, **options)
    except Exception as error:  # any of its builders, and any HTTP library below them
        raise _unreadable(where, f"{error}".strip().rstrip("."), passing=is_passing(error)) from error


def _rows(dataset: Any) -> Iterator[SourceRow]:  # noqa: ANN401 - untyped library
    """Rows as stored: images and sounds stay bytes and are never decoded."""
    position = 0
    for table in dataset.with_format("arrow").iter(batch_size=_BATCH_ROWS):
        for value in arrow_rows(table):
            yield SourceRow(position, position + 1, value)
            position += 1


def _cached_commit(hub: Any, name: HubName) -> str | None:  # noqa: ANN401 - untyped module
    cache = Path(os.environ.get("HF_HUB_CACHE") or hub.constants.HF_HUB_CACHE)
    reference = cache / f"datasets--{name.name.replace('/', '--')}" / "refs" / name.revision
    return reference.read_text().strip() if reference.is_file() else None


def _unreadable(where: str, problem: str, *, passing: bool = False) -> SaerlError:
    remedy = "Check the split's name; a configuration goes before it: hf:org/name@revision#configuration/split."
    said = f"The dataset cannot be read: {problem}."
    return SaerlError("hub_unreadable", said, where=where, remedy=remedy, passing=passing)


def _import(module: str) -> Any:  # noqa: ANN401 - modules are untyped
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise SaerlError(
            "datasets_missing",
            "The library `datasets`, which reads from the Hugging Face hub, is not installed.",
            remedy="pip install datasets, or download the file and name it: path:FILE",
        ) from error
