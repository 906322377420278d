"""examples/train_trl.py: on the tiny version, as the README's reader runs it, and its parts."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.gym import generate_rows, parse_tasks
from saerl_assets.trainers.export import load_order
from saerl_assets_tests.tiny import BATCH_SIZE, KEY
from saerl_assets_tests.trainers.grpo import write_policy

if TYPE_CHECKING:
    from types import ModuleType

    from saerl_assets.resources.home import HomeResource

SCRIPT = Path(__file__).parents[2] / "examples" / "train_trl.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_trl", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"CI": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=400, env=environment)


@pytest.mark.slow
def test_two_steps_and_a_third_from_the_checkpoint(
    tiny_home: HomeResource, example: ModuleType, tmp_path: Path
) -> None:
    policy, out = write_policy(tmp_path / "policy"), tmp_path / "out"
    home = str(tiny_home.open().root)
    export = example.find_export(KEY, home, None)
    order = load_order(export)["prompt_id"].to_list()
    given = [KEY, "--home", home, "--model", str(policy), "--out", str(out), "--save-steps", "1", "--cpu"]
    done = run(*given, "--max-steps", "2")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 steps of" in done.stdout
    assert f"saerl verify {out / 'saerl_log.jsonl'} --manifest {export}" in done.stdout
    assert (out / "model" / "model.safetensors").is_file()
    done = run(*given, "--max-steps", "3", "--resume")
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in (out / "saerl_log.jsonl").read_text().splitlines()]
    assert [line["prompt_id"] for line in lines] == [one for one in order[: 3 * BATCH_SIZE] for _ in range(2)]
    assert [line["step"] for line in lines] == [step for step in range(3) for _ in range(2 * BATCH_SIZE)]
    assert {line["reward"] for line in lines} <= {0.0, 1.0}


@pytest.mark.slow
def test_help_teaches_and_errors_have_no_traceback(tmp_path: Path) -> None:
    assert "make demo" in run("--help").stdout
    done = run("--export", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "not_an_export" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_reward_is_reasoning_gyms_score(example: ModuleType) -> None:
    mix = parse_tasks(tomllib.loads((SCRIPT.parent / "demo" / "tasks.toml").read_text()))
    rows = list(itertools.islice(generate_rows(mix), 40))
    columns = {
        "answer": [row["answer"] for row in rows],
        "topic": [row["family"] for row in rows],
        "extra": [json.dumps({"metadata": row["metadata"], "task_id": row["task_id"]}) for row in rows],
        "prompts": [[{"role": "user", "content": row["prompt"]}] for row in rows],
    }
    right = [[{"role": "assistant", "content": f"The answer is {row['answer']}"}] for row in rows]
    wrong = [[{"role": "assistant", "content": "I do not know -987654321"}] for _ in rows]
    assert len({row["family"] for row in rows}) > 3
    assert example.score(completions=right, **columns, trainer_state=None) == [1.0] * len(rows)
    assert max(example.score(completions=wrong, **columns)) < 1


def test_prompts_of_ones_own_are_rewarded_for_the_reference_answer(example: ModuleType) -> None:
    columns: dict[str, Any] = {"prompts": ["2 + 2?"] * 3, "answer": ["4", "4", None]}
    columns |= {"extra": ["{}"] * 3, "topic": [None] * 3}
    assert example.score(completions=["It is 4", "It is 5", "4"], **columns) == [1.0, 0.0, 0.0]


def test_what_is_not_there_is_said_with_the_command_that_makes_it(tiny_home: HomeResource, example: ModuleType) -> None:
    with pytest.raises(SaerlError, match=f"saerl export {KEY} --to trl --arm shuffle"):
        example.find_export(KEY, str(tiny_home.open().root), "shuffle")
    with pytest.raises(SaerlError, match="other-v1"):
        example.find_export("other-v1", str(tiny_home.open().root), None)


def test_the_model_is_the_one_that_read_the_prompts(
    tiny_home: HomeResource, example: ModuleType, tmp_path: Path
) -> None:
    home = str(tiny_home.open().root)
    assert example.find_model(None, KEY, home).source == "path:model"
    policy = write_policy(tmp_path / "policy")
    assert example.find_model(str(policy), KEY, home).folder == policy
    with pytest.raises(SaerlError, match="model_incomplete"):  # the tiny reader is a bare decoder
        example.load_policy(example.find_model(None, KEY, home))


@pytest.mark.parametrize(("number", "at_most", "expected"), [(256, 64, 64), (96, 64, 48), (7, 4, 1), (8, 99, 8)])
def test_as_many_at_once_as_divide_a_share(number: int, at_most: int, expected: int, example: ModuleType) -> None:
    assert example.largest_divisor(number, at_most) == expected
