from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from saerl_assets.domain.errors import SaerlError
from saerl_assets.trainers import trl_callback
from saerl_assets.trainers.trl import OrderCallback, load
from saerl_assets_tests.trainers.grpo import (
    N_STEPS,
    SIZE,
    batches,
    follow,
    lines_of,
    make_trainer,
    planned,
    prompt_of,
    sorted_steps,
    write_order,
    write_policy,
)

pytestmark = [
    pytest.mark.slow,
    # TRL 1.16 asks models by a name that transformers 5.23 has deprecated.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


@pytest.fixture(autouse=True)
def _quiet_and_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL reports where it runs to its makers unless it runs in CI."""
    import torch

    monkeypatch.setenv("CI", "1")
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_order(tmp_path_factory.mktemp("order") / "export")


@pytest.fixture(scope="module")
def trained(policy: Path, export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a whole training, with a checkpoint after every step."""
    out = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CI", "1")
        follow(policy, export, out, save_strategy="steps", save_steps=1)
    return out


def reward_of_id(prompt_id: list[str], **_: object) -> list[float]:
    return [float(one[1:]) for one in prompt_id]


def test_the_epochs_differ_so_that_a_wrong_order_shows() -> None:
    first, second = planned()[:2], planned()[2:]
    assert sorted(first[0] + first[1]) == sorted(second[0] + second[1])
    assert first != second


@pytest.mark.parametrize(("n_generations", "per_device"), [(2, None), (2, 4), (4, None), (4, 2), (4, 16)])
def test_every_optimizer_step_takes_its_batch(
    n_generations: int, per_device: int | None, policy: Path, export: Path, tmp_path: Path
) -> None:
    """Two epochs, each batch generated at once and accumulated over 1 to 8 parts."""
    steps = follow(policy, export, tmp_path, num_generations=n_generations, per_device=per_device, reward=reward_of_id)
    assert sorted_steps(steps) == planned(n_generations)
    assert lines_of(tmp_path) == [
        {"manifest_id": "m" * 64, "step": step, "epoch": step // 2, "prompt_id": one, "reward": float(one[1:])}
        for step, batch in enumerate(batches())
        for one in batch
        for _ in range(n_generations)
    ]


@pytest.mark.parametrize("part", [1, 2])
def test_a_batch_may_be_generated_in_parts(part: int, policy: Path, export: Path, tmp_path: Path) -> None:
    steps = follow(policy, export, tmp_path, steps_per_generation=part, reward=reward_of_id)
    assert sorted_steps(steps) == planned()
    lines = [(line["step"], line["prompt_id"], line["reward"]) for line in lines_of(tmp_path)]
    assert lines == [
        (step, one, float(one[1:])) for step, batch in enumerate(batches()) for one in batch for _ in range(2)
    ]


def test_two_processes_share_every_batch(policy: Path, export: Path, tmp_path: Path) -> None:
    """The real trainer in two processes, four completions of each batch in each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    command += ["-m", "saerl_assets_tests.trainers.grpo", str(policy), str(export), str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CI": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    of_each = [json.loads((tmp_path / f"steps-{rank}.json").read_text()) for rank in range(2)]
    assert all(len(step) == SIZE for steps in of_each for step in steps)
    both = [one + other for one, other in zip(*of_each, strict=True)]
    assert sorted_steps(both) == planned()
    assert [line["prompt_id"] for line in lines_of(tmp_path)] == [
        one for batch in batches() for one in batch for _ in range(2)
    ]


def test_a_resumed_training_goes_on_in_order(policy: Path, export: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(trained, out)
    whole = lines_of(out)
    with (out / "saerl_log.jsonl").open("a") as file:
        file.write('{"manifest_id": "mm')  # killed while it wrote
    steps = follow(policy, export, out, resume="checkpoint-1", reward=reward_of_id)
    assert sorted_steps(steps) == planned()[1:]
    lines = lines_of(out)
    assert [(line["step"], line["prompt_id"]) for line in lines] == [
        (line["step"], line["prompt_id"]) for line in whole
    ]
    assert lines[: 2 * SIZE] == whole[: 2 * SIZE]


def test_a_training_that_starts_anew_puts_the_old_log_aside(
    policy: Path, export: Path, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(trained, out)
    before = (out / "saerl_log.jsonl").read_text()
    follow(policy, export, out, max_steps=1)
    assert (out / "saerl_log.old.jsonl").read_text() == before
    assert {line["step"] for line in lines_of(out)} == {0}


@pytest.mark.parametrize(
    ("shift", "manifest", "said"),
    [(0, "n", "manifest_id mmmmmmmmmmmm, and this export has nnnnnnnnnnnn"), (3, "m", "order_digest")],
)
def test_a_checkpoint_of_another_order_is_refused(
    shift: int, manifest: str, said: str, policy: Path, trained: Path, tmp_path: Path
) -> None:
    other = write_order(tmp_path / "other", shift=shift, manifest=manifest)
    out = tmp_path / "out"
    shutil.copytree(trained, out)
    before = (out / "saerl_log.jsonl").read_bytes()
    with pytest.raises(SaerlError, match=said) as caught:
        follow(policy, other, out, resume="checkpoint-2")
    assert caught.value.code == "other_manifest"
    assert caught.value.where == "checkpoint at step 2"
    assert (out / "saerl_log.jsonl").read_bytes() == before


def test_checkpoints_name_the_manifest(trained: Path) -> None:
    for step in range(1, N_STEPS + 1):
        state = json.loads((trained / f"checkpoint-{step}" / "trainer_state.json").read_text())
        order = state["stateful_callbacks"]["OrderCallback"]["attributes"]["order"]
        assert (order["manifest_id"], order["arm"], order["batch_size"]) == ("m" * 64, "clustered", SIZE)


def test_a_checkpoint_that_names_no_manifest_is_refused(policy: Path, export: Path, tmp_path: Path) -> None:
    dataset, settings = load(export, num_generations=2)
    make_trainer(
        policy, tmp_path, dataset, settings | {"max_steps": 1, "save_strategy": "steps", "save_steps": 1}
    ).train()
    with pytest.raises(SaerlError, match="checkpoint_without_manifest"):
        follow(policy, export, tmp_path, resume="checkpoint-1")


def test_iterations_over_a_batch_follow_each_other(policy: Path, export: Path, tmp_path: Path) -> None:
    steps = follow(policy, export, tmp_path, num_iterations=2, save_strategy="steps", save_steps=1)
    assert sorted_steps(steps) == [batch for batch in planned() for _ in range(2)]
    assert [line["step"] for line in lines_of(tmp_path)] == [step for step in range(N_STEPS) for _ in range(2 * SIZE)]
    with pytest.raises(SaerlError, match="amid the iterations over one batch"):
        follow(policy, export, tmp_path, num_iterations=2, resume="checkpoint-3")
    with pytest.raises(SaerlError, match="num_iterations 2, and this export has 1"):
        follow(policy, export, tmp_path, resume="checkpoint-2")
    assert sorted_steps(follow(policy, export, tmp_path, num_iterations=2, resume="checkpoint-6")) == 2 * planned()[3:]
    # What it is refused for: the trainer by itself takes batch 1 twice more, and then lags behind.
    dataset, settings = load(export, num_generations=2)
    trainer = make_trainer(policy, tmp_path, dataset, settings | {"num_iterations": 2})
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert sorted_steps(trainer.steps) == [planned()[at] for at in (1, 1, 2, 2, 3)]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "shuffle": ({"shuffle_dataset": True}, "shuffle_dataset is True and must be False"),
    "steps_per_generation": (
        {"steps_per_generation": 2 * SIZE},
        "steps_per_generation is 8 and must be 4, as gradient_accumulation_steps is",
    ),
    "parts of iterations": (
        {"steps_per_generation": 2, "num_iterations": 2},
        "steps_per_generation is 2 and must be 4, as gradient_accumulation_steps is.",
    ),
    "half a batch": (
        {"gradient_accumulation_steps": 2, "steps_per_generation": 2},
        "processes * gradient_accumulation_steps is 4 and must be 8, 4 prompts with 2 completions each",
    ),
    "other generations": ({"num_generations": 4}, "is 8 and must be 16, 4 prompts with 4 completions each"),
    "epochs": ({"num_train_epochs": 2}, "num_train_epochs is 2 and must be 1"),
    "steps": ({"max_steps": N_STEPS + 1}, "max_steps is 5 and must be 4 at most"),
    "columns": ({"remove_unused_columns": True}, "remove_unused_columns is True and must be False"),
    "workers": (
        {"dataloader_in_order": False, "dataloader_num_workers": 1},
        "dataloader_in_order is False and must be True",
    ),
    "callbacks": ({"restore_callback_states_from_checkpoint": True}, "restore_callback_states_from_checkpoint is True"),
    "two of them": ({"shuffle_dataset": True, "num_train_epochs": 2}, "must be False; num_train_epochs is 2"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_stops_the_training_with_its_reason(
    name: str, policy: Path, export: Path, tmp_path: Path
) -> None:
    settings, said = WRONG[name]
    dataset, order = load(export, num_generations=2)
    trainer = make_trainer(policy, tmp_path, dataset, order | settings, callback=OrderCallback(export))
    with pytest.raises(SaerlError) as caught:
        trainer.train()
    assert caught.value.code == "order_not_kept"
    assert said in caught.value.problem
    assert trainer.steps == []
    assert not (tmp_path / "saerl_log.jsonl").exists()


def test_a_batch_size_found_by_the_trainer_is_refused(policy: Path, export: Path, tmp_path: Path) -> None:
    """`GRPOConfig` refuses it by itself; a setting that was changed afterwards is refused here."""
    dataset, order = load(export, num_generations=2)
    with pytest.raises(ValueError, match="auto_find_batch_size is not supported"):
        make_trainer(policy, tmp_path, dataset, order | {"auto_find_batch_size": True})
    trainer = make_trainer(policy, tmp_path, dataset, order, callback=OrderCallback(export))
    trainer.args.auto_find_batch_size = True
    with pytest.raises(SaerlError, match="auto_find_batch_size is True and must be False"):
        trainer.train()


def test_skipping_nothing_on_resume_is_refused(policy: Path, export: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(trained, out)
    with pytest.raises(SaerlError, match="ignore_data_skip is True and must be False"):
        follow(policy, export, out, resume="checkpoint-2", ignore_data_skip=True)


DATASETS: dict[str, tuple[Any, str, str]] = {
    "filtered": (
        lambda rows: rows.filter(lambda row: row["prompt_id"] != "p2"),
        "other_dataset",
        "has 14 rows and the export 16; row 2 is p3 and should be p2",
    ),
    "cut": (lambda rows: rows.select(range(12)), "other_dataset", "has 12 rows and the export 16; row 12 is no prompt"),
    "shuffled": (lambda rows: rows.shuffle(seed=1), "other_dataset", "has 16 rows and the export 16; row"),
    "without ids": (lambda rows: rows.remove_columns("prompt_id"), "other_dataset", "has no prompt_id"),
    "streamed": (lambda rows: rows.to_iterable_dataset(), "order_not_kept", "The data set is streamed"),
}


@pytest.mark.parametrize("name", DATASETS)
def test_another_data_set_stops_the_training(name: str, policy: Path, export: Path, tmp_path: Path) -> None:
    change, code, said = DATASETS[name]
    dataset, order = load(export, num_generations=2)
    more = {"max_steps": N_STEPS} if name == "streamed" else {}
    trainer = make_trainer(policy, tmp_path, change(dataset), order | more, callback=OrderCallback(export))
    with pytest.raises(SaerlError) as caught:
        trainer.train()
    assert (caught.value.code, trainer.steps) == (code, [])
    assert said in caught.value.problem


def test_further_columns_and_other_words_around_a_prompt_are_fine(policy: Path, export: Path, tmp_path: Path) -> None:
    dataset, order = load(export, num_generations=2)
    dataset = dataset.map(lambda row: {"prompt": f"{row['prompt']}", "hint": "none"})
    trainer = make_trainer(policy, tmp_path, dataset, order, callback=OrderCallback(export))
    trainer.train()
    assert sorted_steps(trainer.steps) == planned()


def test_rewards_that_are_not_watched_stop_the_training(policy: Path, export: Path, tmp_path: Path) -> None:
    dataset, order = load(export, num_generations=2)
    trainer = make_trainer(policy, tmp_path, dataset, order)
    trainer.add_callback(OrderCallback(export))
    with pytest.raises(SaerlError, match=r"reward_funcs=order\.watch\(my_reward\)"):
        trainer.train()


def test_a_reward_model_alone_cannot_be_watched(export: Path) -> None:
    with pytest.raises(SaerlError, match="nothing_to_watch"):
        OrderCallback(export).watch("some/reward-model")


def test_a_sampler_of_ones_own_is_looked_through(policy: Path, export: Path, tmp_path: Path) -> None:
    """Settings and data set are right, and still the trainer would take other rows."""
    dataset, order = load(export, num_generations=2)
    trainer = make_trainer(policy, tmp_path, dataset, order, callback=OrderCallback(export))
    right = type(trainer)._get_train_sampler
    trainer._get_train_sampler = lambda rows=None: list(right(trainer, rows))[::-1]
    with pytest.raises(
        SaerlError, match="Completion 0 that the trainer's loader hands out is for row 15, and should be"
    ):
        trainer.train()
    assert trainer.steps == []


def test_a_sampler_that_goes_astray_later_is_stopped_before_that_step(
    policy: Path, export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond what is looked at before: the third batch has two prompts exchanged with the fourth."""
    monkeypatch.setattr(trl_callback, "_LOOKED_AT", 40)
    dataset, order = load(export, num_generations=2)
    trainer = make_trainer(policy, tmp_path, dataset, order, callback=OrderCallback(export))
    right = type(trainer)._get_train_sampler
    trainer._get_train_sampler = lambda rows=None: [{8: 12, 12: 8}.get(row, row) for row in right(trainer, rows)]
    with pytest.raises(SaerlError, match="completion 0 of 8 generated for batch 2 is for prompt") as caught:
        trainer.train()
    assert caught.value.code == "out_of_order"
    assert sorted_steps(trainer.steps) == planned()[:2]
    assert {line["step"] for line in lines_of(tmp_path)} == {0, 1}


def test_completions_that_are_used_once_more_are_noticed(policy: Path, export: Path, tmp_path: Path) -> None:
    """The trainer's counter of parts is off by one, so that it begins each step with completions of the one before."""
    from transformers import TrainerCallback

    dataset, order = load(export, num_generations=2)
    trainer = make_trainer(policy, tmp_path, dataset, order, callback=OrderCallback(export))

    class CountOn(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            trainer._step += 1

    trainer.add_callback(CountOn())
    with pytest.raises(SaerlError, match="step 1 took completions that are not of batch 1"):
        trainer.train()
    assert sorted_steps(trainer.steps) == planned()[:1]


def test_several_rewards_are_summed_as_the_trainer_does(policy: Path, export: Path, tmp_path: Path) -> None:
    async def half(prompt_id: list[str], **_: object) -> list[float | None]:
        return [None if one == "p1" else 0.5 for one in prompt_id]

    def nothing_for_p1(prompt_id: list[str], **_: object) -> list[float | None]:
        return [None if one == "p1" else float(one[1:]) for one in prompt_id]

    callback = OrderCallback(export)
    dataset, order = load(export, num_generations=2)
    trainer = make_trainer(
        policy,
        tmp_path,
        dataset,
        order | {"reward_weights": [10.0, 2.0], "max_steps": 2},
        callback=callback,
        reward=[nothing_for_p1, half],
    )
    assert trainer.reward_func_names == ["nothing_for_p1", "half"]
    trainer.train()
    for line in lines_of(tmp_path):
        expected = None if line["prompt_id"] == "p1" else 10.0 * float(line["prompt_id"][1:]) + 1.0
        assert line["reward"] == expected


def test_an_evaluation_is_neither_compared_nor_logged(policy: Path, export: Path, tmp_path: Path) -> None:
    from datasets import Dataset

    dataset, order = load(export, num_generations=2)
    more = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 2, "eval_on_start": True}
    others = Dataset.from_dict({"prompt": [prompt_of("e0"), prompt_of("e1")], "prompt_id": ["e0", "e1"]})
    trainer = make_trainer(policy, tmp_path, dataset, order | more, callback=OrderCallback(export), evaluation=others)
    trainer.train()
    assert len(lines_of(tmp_path)) == N_STEPS * SIZE * 2
    assert not {line["prompt_id"] for line in lines_of(tmp_path)} & {"e0", "e1"}


@pytest.mark.parametrize(
    "name", ["shuffle", "steps_per_generation", "parts of iterations", "half a batch", "epochs", "steps"]
)
def test_without_the_callback_the_wrong_setting_does_break_the_order(
    name: str, policy: Path, export: Path, tmp_path: Path
) -> None:
    """The callback warns of what the trainer really does."""
    dataset, order = load(export, num_generations=2)
    settings = WRONG[name][0]
    if name == "shuffle":
        del order["shuffle_dataset"]  # its default
        settings = {}
    trainer = make_trainer(policy, tmp_path, dataset, order | settings)
    trainer.train()
    steps = sorted_steps(trainer.steps)
    assert steps != planned()
    if name == "steps_per_generation":  # the same prompts in every two steps, but divided otherwise
        for at in (0, 2):
            assert sorted(steps[at] + steps[at + 1]) == sorted(planned()[at] + planned()[at + 1])
            assert steps[at] != planned()[at]
    if name == "epochs":
        assert steps == 2 * planned()
    if name == "steps":
        assert steps == [*planned(), planned()[0]]


def test_without_the_callback_a_filtered_data_set_moves_every_later_row(
    policy: Path, export: Path, tmp_path: Path
) -> None:
    dataset, order = load(export, num_generations=2)
    trainer = make_trainer(policy, tmp_path, dataset.filter(lambda row: row["prompt_id"] != "p2"), order)
    trainer.train()
    steps = sorted_steps(trainer.steps)
    assert len(steps) == N_STEPS - 1  # 14 rows: the tail of two is dropped
    assert all(step != plan for step, plan in zip(steps, planned(), strict=False))
