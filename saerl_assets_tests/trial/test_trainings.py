"""The trainings of a trial with a trainer that only pretends: which are done, which are next, what is kept."""

from __future__ import annotations

import fcntl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saerl_assets.domain.progress import silent
from saerl_assets.domain.spec import TrialSpec
from saerl_assets.models.sources import ModelFiles
from saerl_assets.trial.runs import Trial, read_evaluations, run_trial
from saerl_assets.trial.training import OnEvaluation, Question, Training

ARMS = ("shuffle", "clustered", "easy_to_hard")
STEPS = (0, 2, 4)


def make_trial(folder: Path, n_seeds: int = 2) -> Trial:
    files = ModelFiles("path:policy", folder, None, "d" * 64, folder)
    spec = TrialSpec(policy="path:policy", verifier="exact", n_seeds=n_seeds, template="plain")
    questions = [Question([{"role": "user", "content": "1+1"}], is_chat=False, answer="2", extra="{}", topic=None)]
    return Trial(folder, ARMS, lambda seed, arm: folder / str(seed) / arm, files, questions, spec, STEPS[-1], "cpu")


class Pretending:
    """A trainer that notes what it was asked, and fails from a training on."""

    def __init__(self, *, fails_at: int | None = None) -> None:
        self.asked: list[tuple[int, str]] = []
        self._fails_at = fails_at

    def __call__(self, training: Training, on_evaluation: OnEvaluation) -> None:
        assert training.export.parent.name == str(training.seed)
        self.asked.append((training.seed, training.export.name))
        training.out.mkdir()
        for step in STEPS:
            if len(self.asked) - 1 == self._fails_at and step == STEPS[1]:
                raise KeyboardInterrupt
            on_evaluation(step, 0.1 * (training.seed + 1) + step / 100, float(step))


def test_trainings_come_seed_by_seed_with_the_baseline_first(tmp_path: Path) -> None:
    trainer = Pretending()
    found = run_trial(make_trial(tmp_path), silent, train=trainer)
    assert trainer.asked == [(seed, arm) for seed in range(2) for arm in ARMS]
    assert found.height == len(trainer.asked) * len(STEPS)
    assert found.filter(seed=1, arm="clustered")["accuracy"].to_list() == pytest.approx([0.2, 0.22, 0.24])
    assert not list(tmp_path.glob("*.work"))


def test_an_interrupted_trial_goes_on_where_it_was(tmp_path: Path) -> None:
    trial = make_trial(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_trial(trial, silent, train=Pretending(fails_at=2))
    assert read_evaluations(trial).select("arm", "seed").n_unique() == 2
    rest = Pretending()
    whole = run_trial(trial, silent, train=rest)
    assert rest.asked == trial.trainings()[2:]
    assert whole.height == len(trial.trainings()) * len(STEPS)
    again = Pretending()
    assert run_trial(trial, silent, train=again).equals(whole)
    assert again.asked == []


def test_more_seeds_later_keep_the_earlier_ones(tmp_path: Path) -> None:
    run_trial(make_trial(tmp_path, 1), silent, train=Pretending())
    rest = Pretending()
    run_trial(make_trial(tmp_path, 3), silent, train=rest)
    assert [seed for seed, _ in rest.asked] == [1] * 3 + [2] * 3


def test_a_training_that_another_process_is_at_is_left_to_it(tmp_path: Path) -> None:
    trial, trainer = make_trial(tmp_path), Pretending()
    with trial.result_file(0, "shuffle").with_suffix(".lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        run_trial(trial, silent, train=trainer)
    assert (0, "shuffle") not in trainer.asked
    assert len(trainer.asked) == len(trial.trainings()) - 1


def test_no_training_is_begun_that_would_end_too_late(tmp_path: Path) -> None:
    trainer = Pretending()
    run_trial(make_trial(tmp_path), silent, minutes=1e-9, train=trainer)
    assert len(trainer.asked) == 1, "the first is"


def test_no_minutes_train_nothing(tmp_path: Path) -> None:
    trainer = Pretending()
    assert run_trial(make_trial(tmp_path), silent, minutes=0, train=trainer).is_empty()
    assert trainer.asked == []


def test_progress_counts_the_steps_of_all_trainings(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []

    def tell(done: int, total: int, *, unit: str, note: str = "") -> None:
        assert unit == "steps"
        told.append((done, total, note))

    run_trial(make_trial(tmp_path), tell, train=Pretending())
    total = 6 * STEPS[-1]
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-1] == (total, total, "training 6 of 6: easy_to_hard, seed 1, step 4 of 4: 24.0% right")


def test_progress_of_a_trial_that_goes_on_counts_what_is_left(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    trial = make_trial(tmp_path)
    run_trial(replace(trial, spec=trial.spec.model_copy(update={"n_seeds": 1})), silent, train=Pretending())
    run_trial(trial, lambda done, total, **more: told.append((done, total, more["note"])), train=Pretending())
    assert {total for _, total, _ in told} == {3 * STEPS[-1]}, "three of six were trained before"
    assert told[0][0] == STEPS[0]
    assert told[-1][0] == 3 * STEPS[-1]
    assert told[-1][2].startswith("training 6 of 6")


def test_the_settings_are_read_from_the_spec() -> None:
    given: dict[str, Any] = {"policy": "path:policy", "verifier": "no verifier"}
    with pytest.raises(ValueError, match="this is no verifier"):
        TrialSpec(**given)
