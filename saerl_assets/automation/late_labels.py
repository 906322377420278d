"""Giving a version a file of labels or a training log in this process: what `saerl labels add` does.

Belongs here: taking it up, and refreshing what labels refresh. Does not belong here: the sensor (feedback), printing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from saerl_assets.automation.feedback import FEEDBACK_TABLES
from saerl_assets.automation.refresh import REFRESHED_BY
from saerl_assets.automation.summary import run_version
from saerl_assets.disk import file_digest
from saerl_assets.domain.errors import SaerlError
from saerl_assets.resources.curriculum import epoch_that_is_due
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.inbox import Inbox


@dataclass(frozen=True)
class Added:
    """What became of a file."""

    key: str
    file: str
    words: str
    refreshed: list[str]
    next_epoch: str
    failure: str

    def lines(self) -> Iterator[str]:
        """What a person is told."""
        yield f"{self.file}: {self.words}"
        if self.refreshed:
            yield f"refreshed: {', '.join(self.refreshed)}; the manifest in use stays as it is"
        if self.next_epoch:
            yield self.next_epoch
            yield f"next: saerl run {self.key} --only batch_manifest,trainer_exports   (the next epoch)"
        elif not self.failure:
            yield f"next: saerl show {self.key}; saerl sql 'FROM difficulty_feedback_correlation'"


def add_labels(home: HomeResource, key: str, file: Path, *, run_name: str = "", refresh: bool = True) -> Added:
    """Takes a file up for a version, and refreshes scores and evidence where it brought labels.

    Raises:
        SaerlError: `unknown_version`, `no_prompts_yet`, or what is wrong with the file. A stage that fails does not
            raise; its reason is in what is returned.
    """
    home.version(key)
    if home.warehouse().rows("prompts", ["prompt_id"], dataset_version=key).is_empty():
        remedy = f"Run it first: saerl run {key}"
        raise SaerlError("no_prompts_yet", f"{key} has no prompts yet to match rows with.", where=key, remedy=remedy)
    before = _files(home, key)
    place = Inbox(home.open()).add_labels(key, file, run_name=run_name)
    digest = file_digest(place)
    done = run_version(home, key, only=list(FEEDBACK_TABLES))
    taken = _files(home, key).filter(pl.col("file_digest") == digest)
    if done.failure:
        return Added(key, file.name, "not taken up yet", [], "", done.failure)
    if taken.is_empty():
        reason = next((Inbox(home.open()).folder / "rejected").glob(f"{place.name}*.reason.txt")).read_text().strip()
        raise SaerlError("feedback_unreadable", reason.replace("\n", "; "), where=str(file), remedy="Correct the file.")
    row = taken.row(0, named=True)
    if digest in before["file_digest"]:
        return Added(key, file.name, "these bytes were taken up before; nothing was added", [], "", "")
    due = epoch_that_is_due(home, home.version(key))
    next_epoch = due.explanation if due else ""
    if not (refresh and row["n_observations"]):
        return Added(key, file.name, row["explanation"], [], next_epoch, "")
    refreshed = run_version(home, key, only=list(REFRESHED_BY))
    made = sorted(refreshed.seconds)
    return Added(key, file.name, row["explanation"], made, next_epoch, refreshed.failure)


def _files(home: HomeResource, key: str) -> pl.DataFrame:
    return home.warehouse().rows("feedback_files", dataset_version=key)
