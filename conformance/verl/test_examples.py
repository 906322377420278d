"""examples/verl: verl takes every word of the launch file, and pays by the reward file."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from conftest import BATCH_SIZE, Export, configure, make_trainer, read_batches
from verl import DataProto
from verl.trainer.ppo.reward import load_reward_manager
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

from saerl_assets.domain.gym import generate_rows, parse_tasks

if TYPE_CHECKING:
    from omegaconf import DictConfig

CHECKOUT = Path(__file__).resolve().parents[2]
RECORDER = """#!/usr/bin/env bash
printf '%s\\0' "$@" > "$(dirname "$0")/words"
"""


def launch(algorithm: str, export: Export | None, folder: Path, *more: str, **told: str) -> str:
    """Runs the launch file on an export; by default with an interpreter that only notes its arguments.

    It would end with `saerl verify`, which is stood in for by false.
    """
    recorder = folder / "recorder"
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)
    given = {"output": str(folder / "out"), "python": str(recorder), "saerl": "false", "model": "no/model"} | told
    if export is not None:
        given["export"] = str(export.folder)
    environment = os.environ | {name.upper(): value for name, value in given.items()}
    command = [str(CHECKOUT / "examples/verl/train.sh"), algorithm, *more]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def launched(algorithm: str, export: Export, folder: Path, model: str = "no/model") -> DictConfig:
    """verl's configuration as the launch file makes it."""
    launch(algorithm, export, folder, model=model)
    program, *overrides = (folder / "words").read_text().rstrip("\0").split("\0")[1:]
    assert program == "verl.trainer.main_ppo"
    return configure(*overrides)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_verl_accepts_the_launch_file_and_reads_in_order(
    algorithm: str, export: Export, model: Path, tmp_path: Path
) -> None:
    config = launched(algorithm, export, tmp_path, str(model))
    assert need_critic(config) == (algorithm == "ppo")
    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    trainer = make_trainer(config)
    assert read_batches(trainer, trainer.total_training_steps) == export.batches
    assert export.manifest_id[:12] in config.trainer.default_local_dir


def test_verls_own_program_reads_the_launch_file(export: Export, tmp_path: Path) -> None:
    printed = launch("ppo", export, tmp_path, "--cfg", "job", python=sys.executable)
    assert "  shuffle: false" in printed
    assert f"train_batch_size: {BATCH_SIZE}" in printed
    assert not (tmp_path / "out").exists(), "looking changes nothing"


def test_the_export_is_written_by_the_platforms_own_environment(export: Export, tmp_path: Path) -> None:
    saerl = tmp_path / "saerl"
    saerl.write_text(f'#!/usr/bin/env bash\necho "$@" >> {tmp_path}/asked\ncp -r {export.folder} "${{@: -1}}"\n')
    saerl.chmod(0o755)
    launch("grpo", None, tmp_path, saerl=str(saerl))
    written = tmp_path / "out" / "export"
    assert (tmp_path / "asked").read_text() == f"export demo-v1 --to verl --out {written}\n"
    assert f"data.train_files={written}/train.parquet" in (tmp_path / "words").read_text().split("\0")


def test_the_log_is_cut_back_to_the_checkpoint_that_verl_resumes_from(export: Export, tmp_path: Path) -> None:
    folder = Path(launched("ppo", export, tmp_path).trainer.default_local_dir)
    log = folder / "saerl_log.jsonl"
    assert log.read_text() == ""
    log.write_text("a line\n" * 11)
    (folder / "latest_checkpointed_iteration.txt").write_text("2")
    with pytest.raises(subprocess.CalledProcessError):  # by `saerl verify`
        launch("ppo", export, tmp_path)
    assert log.read_text() == "a line\n" * 2 * BATCH_SIZE


class Text:
    """A tokenizer of characters."""

    def decode(self, ids: torch.Tensor, **_: Any) -> str:
        return "".join(map(chr, ids.tolist()))


def reward(config: DictConfig, response: str, right: str, info: dict[str, Any]) -> float:
    """verl's reward manager on one response, with the reward function that the configuration names."""
    manager = load_reward_manager(config, Text())
    letters = torch.tensor([[ord(letter) for letter in response]])
    data = DataProto.from_dict(
        {"responses": letters, "attention_mask": torch.ones_like(letters)},
        {
            "data_source": np.array(["some-v1"], dtype=object),
            "reward_model": np.array([{"style": "rule", "ground_truth": right}], dtype=object),
            "extra_info": np.array([info], dtype=object),
        },
    )
    scored = asyncio.get_event_loop().run_until_complete(manager.run_single(data))
    return float(scored["reward_score"])


def test_every_family_of_the_demo_is_scored_by_its_own_scorer(export: Export, tmp_path: Path) -> None:
    config = launched("grpo", export, tmp_path)
    tasks = tomllib.loads((CHECKOUT / "examples/demo/tasks.toml").read_text())
    seen = set()
    for row in generate_rows(parse_tasks(tasks | {"n_rows": 60})):
        extra = {"level": row["level"], "task_id": row["task_id"], "metadata": row["metadata"]}
        info = {"topic": row["family"], "extra": json.dumps(extra)}
        right = str(row["answer"])
        assert reward(config, f"So the answer is {right}", right, dict(info)) > 0.999, row
        assert reward(config, "I do not know", right, dict(info)) < 0.5, row
        seen.add(row["family"])
    assert len(seen) == len(tasks["families"])


def test_prompts_of_ones_own_are_held_against_the_reference_answer(export: Export, tmp_path: Path) -> None:
    config = launched("grpo", export, tmp_path)
    info = {"topic": None, "extra": "{}"}
    assert reward(config, "Thus 3 + 4 = 7", "7", dict(info)) == 1
    assert reward(config, "8", "7", dict(info)) == 0


def test_the_log_has_the_step_that_was_trained_and_not_the_planned_one(export: Export, tmp_path: Path) -> None:
    config = launched("grpo", export, tmp_path)
    config.reward.custom_reward_function.reward_kwargs.n_responses = 1
    trainer = make_trainer(config)
    for _ in range(3):
        batch = trainer._next_train_batch()
        for info in reversed(list(batch["extra_info"])):
            reward(config, "7", "7", info | {"step": 99})
    reward(config, "7", "7", {"extra": "{}"})  # a row for validation
    log = Path(config.reward.custom_reward_function.reward_kwargs.log)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["prompt_id"] for line in lines] == [one for batch in export.batches[:3] for one in batch[::-1]]
    assert [line["step"] for line in lines] == [step for step in range(3) for _ in range(BATCH_SIZE)]
    assert {(line["manifest_id"], line["reward"], line["epoch"]) for line in lines} == {(export.manifest_id, 1.0, 0)}
