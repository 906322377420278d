"""examples/trial/workings.py: the steps of every drawn task are true and lead to its reference answer."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from saerl_assets.domain.gym import generate_rows, parse_tasks
from saerl_assets.domain.verifiers import final_answer

if TYPE_CHECKING:
    from types import ModuleType

FOLDER = Path(__file__).parents[2] / "examples" / "trial"
EQUATION = re.compile(r"^(-?\d+)([-+*/])(-?\d+)=(-?\d+)$")
SUM_OF_POWERS = re.compile(r"^\d+=(\d+\+?)+$")


@pytest.fixture(scope="module")
def workings() -> ModuleType:
    spec = importlib.util.spec_from_file_location("workings", FOLDER / "workings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_true(step: str) -> bool:
    """Whether a step holds: `8+8=16`, `42=32+8+2`, or a number alone, a remainder."""
    if found := EQUATION.match(step):
        one, sign, other, result = found.groups()
        value = {"+": int(one) + int(other), "-": int(one) - int(other), "*": int(one) * int(other)}
        return (Fraction(int(one), int(other)) if sign == "/" else value[sign]) == int(result)
    if SUM_OF_POWERS.match(step):
        whole, _, powers = step.partition("=")
        return int(whole) == sum(int(power) for power in powers.split("+"))
    return step.isdigit()


@pytest.mark.parametrize("tasks", ["policy_tasks.toml", "tasks.toml"])
def test_steps_are_true_and_end_with_the_answer(workings: ModuleType, tasks: str) -> None:
    with (FOLDER / tasks).open("rb") as file:
        mix = parse_tasks(tomllib.load(file)).model_copy(update={"n_rows": 400})
    rows = list(generate_rows(mix))
    assert {row["family"] for row in rows} == {family.name for family in mix.families}
    for row in rows:
        text = workings.worked(row)
        steps, announced, answer = text.rpartition(workings.ANNOUNCEMENT)
        assert announced, text
        assert steps.strip(), text
        assert answer == row["answer"]
        assert all(is_true(step) for step in steps.split()), text
        assert final_answer(text, str(row["answer"]), {}) == 1.0


@pytest.mark.parametrize(
    ("family", "metadata", "steps"),
    [
        ("chain_sum", '{"expression": "8 + 8 - 7"}', "8+8=16 16-7=9"),
        ("products", '{"expression": "47 * 53"}', "47*50=2350 47*3=141 2350+141=2491"),
        ("gcd", '{"numbers": [893, 361]}', "893 361 171 19 0"),
        ("lcm", '{"numbers": [12, 8]}', "12 8 4 0 12/4=3 3*8=24"),
        ("count_bits", '{"number": 42}', "42=32+8+2"),
        ("fraction_simplification", '{"numerator": 6, "denominator": 21}', "21 6 3 0 6/3=2 21/3=7"),
    ],
)
def test_each_family_has_its_way(workings: ModuleType, family: str, metadata: str, steps: str) -> None:
    row = {"family": family, "metadata": metadata, "answer": "x"}
    assert workings.worked(row) == f"{steps} answer: x"


def test_a_step_that_is_false_is_seen() -> None:
    assert is_true("8+8=16")
    assert not is_true("8+8=17")
    assert not is_true("42=32+8+1")
    assert not is_true("7/2=3")
