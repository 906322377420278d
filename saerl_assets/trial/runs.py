"""All trainings of a trial, one after the other: which are done, what the next one is, what they told.

Belongs here: the order of the trainings, their results on disk, going on after an interruption. Does not belong here:
one training (training), what the results show (domain.trial).

A training's results are a file that appears when it has ended, so that a killed one is trained again and no other is.
Several processes may work on one trial, on several GPUs, say: each takes a training that no other one has.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import polars as pl

from saerl_assets.disk import write_whole
from saerl_assets.domain.progress import Progress
from saerl_assets.domain.trial import EVALUATION_SCHEMA
from saerl_assets.trial.training import OnEvaluation, Question, Training, train_once

if TYPE_CHECKING:
    from saerl_assets.domain.spec import TrialSpec
    from saerl_assets.models.sources import ModelFiles


Train: TypeAlias = Callable[[Training, OnEvaluation], None]
ExportOf: TypeAlias = Callable[[int, str], Path]


@dataclass(frozen=True)
class Trial:
    """What is trained on what."""

    folder: Path
    """Where results are kept, named by all that decides them."""
    arms: Sequence[str]
    """What is compared, the baseline first."""
    export_of: ExportOf
    """Folder of the export for TRL that one seed and arm follows, written where it is not there."""
    files: ModelFiles
    """The policy's."""
    questions: Sequence[Question]
    """Held-out prompts."""
    spec: TrialSpec
    n_steps: int
    device: str
    seeds: Sequence[int] | None = None
    """Of the trainings; by default as many as the spec says, from 0."""

    def trainings(self) -> list[tuple[int, str]]:
        """Seed and arm of each, seed by seed, so that whatever is done can be compared."""
        seeds = range(self.spec.n_seeds) if self.seeds is None else self.seeds
        return [(seed, arm) for seed in seeds for arm in self.arms]

    def result_file(self, seed: int, arm: str) -> Path:
        """Where the evaluations of one training are."""
        return self.folder / f"{arm}-{seed}.json"


def run_trial(
    trial: Trial, progress: Progress, *, minutes: float | None = None, train: Train = train_once
) -> pl.DataFrame:
    """Trains what is not trained yet.

    Args:
        trial: The trial.
        progress: Told after every evaluation, in optimizer steps: those of this call, of these and what is still to do.
        minutes: No training is begun that would probably end later, but for the first; it goes on at the next call.
            At 0 none is begun at all: what there is, is read.
        train: What does one training.

    Returns:
        The evaluations of all trainings that have ended, see `read_evaluations`.
    """
    started = time.monotonic()
    trial.folder.mkdir(parents=True, exist_ok=True)
    trainings = trial.trainings()
    taken: list[float] = []
    for seed, arm in trainings if minutes != 0 else []:
        with _claimed(trial.result_file(seed, arm)) as is_ours:
            if not is_ours:
                continue
            elapsed = time.monotonic() - started
            if minutes is not None and taken and elapsed + max(taken) > minutes * 60:
                break
            _train(trial, seed, arm, progress, train, n_before=len(taken))
            taken.append(time.monotonic() - started - elapsed)
    return read_evaluations(trial)


def read_evaluations(trial: Trial) -> pl.DataFrame:
    """The evaluations of all trainings that have ended: columns of `EVALUATION_SCHEMA`."""
    rows = [
        row
        for seed, arm in trial.trainings()
        if trial.result_file(seed, arm).is_file()
        for row in json.loads(trial.result_file(seed, arm).read_text(encoding="utf-8"))
    ]
    return pl.DataFrame(rows, schema=EVALUATION_SCHEMA)


def _train(trial: Trial, seed: int, arm: str, progress: Progress, train: Train, *, n_before: int) -> None:
    """One training; its result appears when it has ended."""
    rows: list[dict[str, object]] = []
    trainings = trial.trainings()
    n_done = sum(trial.result_file(*each).is_file() for each in trainings)
    n_left = len(trainings) - n_done
    work = trial.folder / f"{arm}-{seed}.work"
    shutil.rmtree(work, ignore_errors=True)  # of one that was killed

    def note(step: int, accuracy: float, seconds: float) -> None:
        rows.append(
            {
                "arm": arm,
                "seed": seed,
                "step": step,
                "accuracy": accuracy,
                "n_prompts": len(trial.questions),
                "seconds": seconds,
            }
        )
        progress(
            n_before * trial.n_steps + step,
            (n_before + n_left) * trial.n_steps,
            unit="steps",
            note=f"training {n_done + 1} of {len(trainings)}: {arm}, seed {seed}, step {step} of {trial.n_steps}: "
            f"{accuracy:.1%} right",
        )

    train(
        Training(
            trial.export_of(seed, arm),
            trial.files,
            trial.questions,
            trial.spec,
            seed,
            trial.n_steps,
            trial.device,
            work,
        ),
        note,
    )
    write_whole(trial.result_file(seed, arm), json.dumps(rows))
    shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _claimed(result: Path) -> Iterator[bool]:
    """Whether this process is the one to make a result: it is not there, and no other process is at it.

    The kernel lets go of the claim of a killed process.
    """
    with result.with_suffix(".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield not result.is_file()
