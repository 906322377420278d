from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.trial import (
    EVALUATION_SCHEMA,
    SUMMARY_SCHEMA,
    monotone,
    steps_to_reach,
    summarise_trial,
    verdict_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = np.arange(0, 101, 10)


def evaluated(curves: dict[str, Callable[[float, int], float]], n_seeds: int = 5) -> pl.DataFrame:
    rows = [
        (arm, seed, int(step), curve(float(step), seed), 100, float(step))
        for arm, curve in curves.items()
        for seed in range(n_seeds)
        for step in STEPS
    ]
    return pl.DataFrame(rows, schema=EVALUATION_SCHEMA, orient="row")


def rising(speed: float) -> Callable[[float, int], float]:
    return lambda step, seed: min(0.2 + 0.004 * speed * step + 0.005 * (seed - 2), 0.9)


def summary_of(curves: dict[str, Callable[[float, int], float]], **more: object) -> dict[str, dict[str, object]]:
    n_seeds, target = int(str(more.get("n_seeds", 5))), more.get("target")
    assert target is None or isinstance(target, float)
    found = summarise_trial(evaluated(curves, n_seeds), target=target, seed=0)
    assert dict(found.schema) == SUMMARY_SCHEMA
    return {str(row["arm"]): row for row in found.to_dicts()}


def test_an_arm_that_learns_twice_as_fast_needs_half_the_steps() -> None:
    found = summary_of({"shuffle": rising(1), "clustered": rising(2), "easy_to_hard": rising(1)})
    assert found["clustered"]["step_ratio"] == pytest.approx(0.5)
    assert found["clustered"]["step_ratio_high"] < 1  # type: ignore[operator]
    assert found["shuffle"]["step_ratio"] == 1
    assert found["shuffle"]["steps_to_target"] == 100
    assert found["easy_to_hard"]["step_ratio"] == pytest.approx(1)
    assert found["clustered"]["final_difference"] == pytest.approx(0.3, abs=0.011)
    said = verdict_of(found["clustered"], n_steps=100)
    assert said.startswith("clustered reached 60.0% in 0.50 of shuffle's steps (95% interval 0.50 to")
    assert said.endswith("5 seeds): fewer.")
    assert "no difference could be shown" in verdict_of(found["easy_to_hard"], n_steps=100)


def test_an_arm_that_never_gets_there_is_censored_and_not_missing() -> None:
    found = summary_of({"shuffle": rising(1), "clustered": rising(0.25)})
    row = found["clustered"]
    assert (row["is_censored"], row["is_ratio_open"], row["n_censored"]) == (True, True, 5)
    assert (row["steps_to_target"], row["step_ratio"]) == (100, 1)
    assert verdict_of(row, n_steps=100).startswith("clustered did not reach 60.0% in 100 steps: at least 1.00")


def test_seeds_that_disagree_show_no_difference() -> None:
    def unsteady(step: float, seed: int) -> float:
        return rising(2 if seed % 2 else 0.5)(step, seed)

    row = summary_of({"shuffle": rising(1), "clustered": unsteady})["clustered"]
    assert row["step_ratio_low"] < 1 < row["step_ratio_high"]  # type: ignore[operator]
    assert "no difference could be shown" in verdict_of(row, n_steps=100)


def test_one_seed_has_no_interval_and_no_verdict() -> None:
    row = summary_of({"shuffle": rising(1), "clustered": rising(2)}, n_seeds=1)["clustered"]
    assert row["step_ratio"] == pytest.approx(0.5)
    assert row["step_ratio_low"] is None
    assert verdict_of(row, n_steps=100) == "clustered: 1 seeds, no interval: nothing can be said yet."


def test_a_target_that_the_spec_names_is_the_same_for_all() -> None:
    found = summary_of({"shuffle": rising(1), "clustered": rising(2)}, target=0.4)
    assert {row["target"] for row in found.values()} == {0.4}
    assert found["shuffle"]["steps_to_target"] == pytest.approx(50)
    assert found["clustered"]["step_ratio"] == pytest.approx(0.5)


def test_a_target_that_nobody_reaches_makes_both_even_and_open() -> None:
    found = summary_of({"shuffle": rising(1), "clustered": rising(2)}, target=0.99)
    assert found["clustered"]["step_ratio"] == 1
    assert all(row["is_censored"] for row in found.values())


def test_without_the_baseline_there_is_no_comparison() -> None:
    row = summary_of({"clustered": rising(2)})["clustered"]
    assert (row["step_ratio"], row["target"]) == (None, None)
    assert row["final_accuracy"] == pytest.approx(0.9, abs=0.01)


def test_only_seeds_that_both_have_are_compared() -> None:
    whole = evaluated({"shuffle": rising(1), "clustered": rising(2)})
    part = whole.filter((pl.col("arm") == "shuffle") | (pl.col("seed") < 2))
    found = summarise_trial(part, target=None, seed=0)
    assert dict(zip(found["arm"], found["n_seeds"], strict=True)) == {"shuffle": 5, "clustered": 2}


def test_trainings_of_different_lengths_are_refused() -> None:
    whole = evaluated({"shuffle": rising(1), "clustered": rising(2)})
    with pytest.raises(SaerlError, match="different steps"):
        summarise_trial(whole.filter((pl.col("arm") == "shuffle") | (pl.col("step") < 50)), target=None, seed=0)


def test_the_same_evaluations_give_the_same_summary_in_any_order() -> None:
    whole = evaluated({"shuffle": rising(1), "clustered": lambda step, seed: rising(1 + seed / 4)(step, seed)})
    assert summarise_trial(whole, target=None, seed=3).equals(summarise_trial(whole.reverse(), target=None, seed=3))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.floats(0, 1))
def test_a_curve_reaches_a_target_where_it_stands_at_it(values: list[float], target: float) -> None:
    curve = monotone(np.array(values))
    steps = np.arange(len(values)) * 10
    assert np.all(np.diff(curve) >= -1e-9)
    found = steps_to_reach(steps, curve, target)
    if found is None:
        assert curve[-1] < target
    elif found > 0:
        assert np.interp(found, steps, curve) == pytest.approx(target, abs=1e-6)
    else:
        assert curve[0] >= target - 1e-9


@given(st.lists(st.floats(0.3, 3.0), min_size=5, max_size=5), st.integers(0, 5))
def test_the_interval_holds_the_ratio_of_the_samples_that_repeat_the_seeds(speeds: list[float], seed: int) -> None:
    whole = evaluated({"shuffle": rising(1), "clustered": lambda step, at: rising(speeds[at])(step, at)})
    row = summarise_trial(whole, target=None, seed=seed).filter(pl.col("arm") == "clustered").to_dicts()[0]
    assert row["step_ratio_low"] <= row["step_ratio"] + 0.05
    assert row["step_ratio"] <= row["step_ratio_high"] + 0.05


def test_what_the_signals_cost_is_counted_in() -> None:
    evaluations = evaluated({"shuffle": rising(1), "clustered": rising(2)})
    found = {row["arm"]: row for row in summarise_trial(evaluations, target=None, seed=0, signal_seconds=30).to_dicts()}
    assert (found["shuffle"]["signal_seconds"], found["shuffle"]["time_ratio"]) == (0.0, 1.0)
    assert found["clustered"]["signal_seconds"] == 30.0
    assert found["clustered"]["time_ratio"] == pytest.approx((50 + 30) / 100), "a step takes a second"
    unknown = summarise_trial(evaluations, target=None, seed=0)
    assert unknown["time_ratio"].null_count() == unknown.height


def test_every_arm_is_summed_up_in_words() -> None:
    summary = summarise_trial(evaluated({"shuffle": rising(1), "clustered": rising(2)}), target=None, seed=0)
    assert summary["verdict"].to_list() == [verdict_of(row, n_steps=100) for row in summary.to_dicts()]
