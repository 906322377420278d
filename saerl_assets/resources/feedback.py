"""Files of labels and training logs that a version was given, read one after the other.

Belongs here: which of them are not in the warehouse yet, and reading them. Does not belong here: what a row means
(domain.training_feedback), storing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.training_feedback import Feedback, read_feedback
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.catalog import Version
from saerl_assets.storage.inbox import Inbox, LabelFile
from saerl_assets.storage.schema import tables
from saerl_assets.storage.sources import read_source, resolve_source


@dataclass(frozen=True)
class TakenUp:
    """Rows of every table from the files that were new."""

    observations: pl.DataFrame
    feedback: pl.DataFrame
    rejected: pl.DataFrame
    files: pl.DataFrame
    refused: list[str]
    """Files that could not be read, with the reason; they were set aside."""


def take_up(home: HomeResource, version: Version, prompts: pl.DataFrame, now: datetime) -> TakenUp:
    """Reads the files that a version was given and whose bytes were not taken up yet.

    A file that cannot be read is set aside in the inbox with its reason, and the others are read.
    """
    inbox = Inbox(home.open())
    known = set(home.warehouse().rows("feedback_files", ["file_digest"], dataset_version=version.key)["file_digest"])
    parts: dict[str, list[pl.DataFrame]] = {name: [] for name in ("observations", "feedback", "rejected", "files")}
    refused = []
    for file in inbox.labels(version.key):
        try:
            for digest, found in _read(version, file, prompts, known):
                known.add(digest)
                for name, frame in _frames(digest, file, found, now).items():
                    parts[name].append(frame)
        except SaerlError as error:
            inbox.reject([file.path.relative_to(inbox.folder).as_posix()], error)
            refused.append(str(error))
    named = {
        "observations": "label_observations",
        "feedback": "training_feedback",
        "rejected": "rejected_feedback",
        "files": "feedback_files",
    }
    frames = {name: pl.concat([_empty(table), *parts[name]], how="vertical_relaxed") for name, table in named.items()}
    return TakenUp(**frames, refused=refused)


def _read(version: Version, file: LabelFile, prompts: pl.DataFrame, known: set[str]) -> Iterator[tuple[str, Feedback]]:
    """The file by its digest, unless its bytes are known."""
    resolved = resolve_source(f"path:{file.path}", file.path.parent)
    if resolved.digest in known:
        return
    found = read_feedback(
        read_source(resolved),
        prompts,
        version.spec,
        file=file.name,
        digest=resolved.digest,
        manifest_id=version.current_manifest_id,
        run_name=file.run_name or None,
    )
    yield resolved.digest, found


def _frames(digest: str, file: LabelFile, found: Feedback, now: datetime) -> dict[str, pl.DataFrame]:
    when = pl.lit(now, pl.Datetime("us"))
    row = {
        "file_digest": digest,
        "file": file.name,
        "format": found.format,
        "n_rows": found.n_rows,
        "n_observations": found.observations.height,
        "n_feedback": found.feedback.height,
        "n_rejected": found.rejected.height,
        "n_unmatched": found.n_unmatched,
        "explanation": found.explanation,
        "taken_at": now,
    }
    frames = {
        "label_observations": found.observations.with_columns(observed_at=when),
        "training_feedback": found.feedback.with_columns(
            file_digest=pl.lit(digest), place=pl.format("{}:{}", pl.lit(file.name), "line"), observed_at=when
        ).drop("line"),
        "rejected_feedback": found.rejected.with_columns(file_digest=pl.lit(digest)),
        "feedback_files": pl.DataFrame([row]),
    }
    names = {"label_observations": "observations", "training_feedback": "feedback", "rejected_feedback": "rejected"}
    return {
        names.get(table, "files"): frame.select(
            pl.col(column.name).cast(column.dtype)
            for column in tables()[table].columns
            if column.name != "dataset_version"
        )
        for table, frame in frames.items()
    }


def _empty(table: str) -> pl.DataFrame:
    columns = tables()[table].columns
    return pl.DataFrame(schema={column.name: column.dtype for column in columns if column.name != "dataset_version"})
