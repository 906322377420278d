"""examples/trial and benchmarks/orders.py: every spec is one, and its trial fits the order that it plans."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from saerl_assets.automation.estimate import _order
from saerl_assets.domain.gym import parse_tasks
from saerl_assets.domain.spec import VersionSpec, parse_spec
from saerl_assets.domain.trial import BASELINE, arms_asked_for

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]
N_TRAIN, N_STEPS = 1288, 80  # what the split leaves of trial.toml's prompts, and the batches that these fill
SPECS = ("trial", "quick", "smollm2")


def read(name: str) -> VersionSpec:
    path = ROOT / "examples" / "trial" / f"{name}.toml"
    return parse_spec(path.read_text(encoding="utf-8"), str(path))


@pytest.fixture(scope="module")
def orders() -> ModuleType:
    """The benchmark as a module."""
    spec = importlib.util.spec_from_file_location("orders", ROOT / "benchmarks" / "orders.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["orders"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", SPECS)
def test_the_trial_of_a_spec_fits_its_prompts(name: str) -> None:
    spec = read(name)
    tasks = ROOT / "examples" / "trial" / spec.data.source.partition(":")[2]
    with tasks.open("rb") as file:
        n_rows = min(parse_tasks(tomllib.load(file)).n_rows, spec.data.limit or 10**9)
    n_train = int(n_rows * (1 - spec.split.evaluation_fraction) * 0.95)  # the split is by hash
    found = _order(spec, n_train)
    assert found["n_trainings"] == len(arms_asked_for(spec)) * spec.trial.n_seeds  # type: ignore[union-attr]
    assert found["n_trial_steps"] > 0
    assert arms_asked_for(spec)[0] == BASELINE


def test_every_order_is_an_arm_of_a_version_of_its_own(orders: ModuleType) -> None:
    base = read("trial")
    keys: dict[str, VersionSpec] = {}
    for order in orders.ORDERS.values():
        for seed in (base.seed, 8):
            args = argparse.Namespace(spec=orders.SPEC, version_seed=seed)
            spec = orders._spec(args, order.changes)
            assert keys.setdefault(spec.key, spec) == spec, "one key, one spec"
            assert order.arm in {*spec.batches.controls, "clustered", "balanced"}
            assert spec.seed == seed
            changed = {name for settings in order.changes.values() for name in settings}
            kept = {name: value for name, value in base.batches if name not in changed}
            assert {name: value for name, value in spec.batches if name in kept} == kept
            assert _order(spec, N_TRAIN)["n_trial_steps"] == N_STEPS
    assert keys[base.key] == base
    assert len(keys) == 2 * len({str(order.changes) for order in orders.ORDERS.values()})


def test_the_figure_of_a_confirmation_has_room_for_its_names(orders: ModuleType) -> None:
    arms = pl.DataFrame({"arm": ["shuffle", "contested half", "contested half, true label"]})
    short = orders._shortened(arms, "contested half, shuffled")["arm"].to_list()
    assert short == ["shuffle", "contested half", "true label"]
    assert orders._shortened(arms, None).equals(arms)
    rows = [(arm, 0, step, 0.1 + step / 100) for arm in arms["arm"] for step in (0, 20)]
    drawn = orders.figure_trial_evaluations(
        pl.DataFrame(rows, schema=["arm", "seed", "step", "accuracy"], orient="row")
    )
    named = pl.DataFrame(rows[:2], schema=["arm", "seed", "step", "accuracy"], orient="row")
    assert drawn != orders.figure_trial_evaluations(named), "orders that the report has no name for are drawn too"


def test_controls_are_held_against_the_confirmed_order(orders: ModuleType) -> None:
    ends = {"shuffle": (0.4, 0.42), "half": (0.5, 0.52), "half, random drop": (0.47, 0.5)}
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "step": step,
            "accuracy": end if step else 0.3,
            "n_prompts": 9,
            "seconds": 1.0 * step,
        }
        for arm, found in ends.items()
        for seed, end in enumerate(found)
        for step in (0, 20)
    ]
    told = orders._beside(pl.DataFrame(rows), "half", 0)
    assert [line.partition(" points")[0] for line in sorted(told)] == [
        "beside half: half, random drop ended -2.5",
        "beside half: shuffle ended -10.0",
    ]


def test_a_confirmation_has_the_order_with_its_controls(orders: ModuleType) -> None:
    names = orders._names(argparse.Namespace(confirm="hard first", orders=None))
    assert names[0] == "hard first"
    assert {name.partition(", ")[2] for name in names[1:]} == {*orders.CONTROLS, "true label"} - {
        "random drop",
        "shuffled true label",
    }
    names = orders._names(argparse.Namespace(confirm="contested half, shuffled", orders=None))
    beside = {"shuffled", "shuffled dense state", "shuffled true label", "random clusters", "random drop", "true label"}
    assert sorted(names) == sorted(["contested half", *(f"contested half, {name}" for name in beside)])
    searched = orders._names(argparse.Namespace(confirm=None, orders=None))
    assert set(searched) < set(orders.ORDERS)
    assert {"easy first", "hard first", "contested first, true label"} <= set(searched)
