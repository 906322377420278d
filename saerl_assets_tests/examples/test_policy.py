"""examples/trial/policy: the policy of the trials is whole, small, and knows what a trial on products can build on."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from saerl_assets.domain.gym import generate_rows, parse_tasks

if TYPE_CHECKING:
    from types import ModuleType

FOLDER = Path(__file__).parents[2] / "examples" / "trial"
N_TASKS = 320


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script that made it, which imports the module beside it."""
    spec = importlib.util.spec_from_file_location("make_policy", FOLDER / "policy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(FOLDER))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


def test_it_is_as_the_script_writes_it_and_small_enough_to_come_along(script: ModuleType) -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "policy")
    model = AutoModelForCausalLM.from_pretrained(FOLDER / "policy")
    assert {weight.dtype for weight in model.parameters()} == {torch.float16}
    fresh = script.make_model(len(tokenizer))
    assert {name: weight.shape for name, weight in model.named_parameters()} == {
        name: weight.shape for name, weight in fresh.named_parameters()
    }
    assert sum(path.stat().st_size for path in (FOLDER / "policy").iterdir()) < 3_000_000


def test_it_gets_some_products_right_and_more_of_them_where_it_writes_the_steps_out(script: ModuleType) -> None:
    """What a trial needs: neither nothing nor everything is right, and there is a better habit to be rewarded."""
    with (FOLDER / "tasks.toml").open("rb") as file:
        rows = list(itertools.islice(generate_rows(parse_tasks(tomllib.load(file))), N_TASKS))
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "policy", padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(FOLDER / "policy", dtype=torch.float32)
    torch.manual_seed(0)
    right, right_with_steps, with_steps = script.answer_shares(model, tokenizer, rows)["all"]
    assert 0.1 < right < 0.6
    assert 0.05 < with_steps < 0.5
    assert right_with_steps > right + 0.1
