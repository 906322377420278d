from __future__ import annotations

import json
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
    SignalCost,
    _samples,
    interval_of,
    judge_arm,
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
    assert (found["clustered"]["ratio_bound"], judge_arm(found["clustered"])) == ("exact", "better")
    said = verdict_of(found["clustered"], n_steps=100)
    assert said.startswith("clustered reached 60.0% in 0.50 of shuffle's steps (95% interval 0.50 to")
    assert said.endswith("(5 seeds): fewer steps.")
    assert verdict_of(found["shuffle"], n_steps=100) == "shuffle: 60.0% after 100 steps, 5 seeds."
    assert "no difference could be shown" in verdict_of(found["easy_to_hard"], n_steps=100)


def test_an_arm_that_never_gets_there_is_censored_and_worse() -> None:
    found = summary_of({"shuffle": rising(1), "clustered": rising(0.25)})
    row = found["clustered"]
    assert (row["is_censored"], row["ratio_bound"], row["n_censored"]) == (True, "at_least", 5)
    assert (row["steps_to_target"], row["step_ratio"]) == (100, 1)
    assert (row["step_ratio_low"], row["step_ratio_high"]) == (1, None), "how much more nobody knows"
    said = verdict_of(row, n_steps=100)
    assert said.startswith(
        "clustered did not reach 60.0% in 100 steps, at least 1.00 of shuffle's (95% interval over 1.00)"
    )
    assert said.endswith("it ended -30.0 points beside it, -30.0 to -30.0 (5 seeds): worse.")
    assert judge_arm(row) == "worse"


def test_an_arm_that_needs_more_steps_than_a_shuffle_that_stands_still_is_worse() -> None:
    def stands_still(step: float, seed: int) -> float:
        return rising(4)(min(step, 20.0), seed)

    row = summary_of({"shuffle": stands_still, "clustered": rising(1)})["clustered"]
    assert row["step_ratio"] == pytest.approx(4)
    assert row["step_ratio_low"] > 1  # type: ignore[operator]
    assert judge_arm(row) == "worse"
    assert verdict_of(row, n_steps=100).endswith("worse.")


def test_a_shuffle_that_does_not_improve_leaves_nothing_to_count_by() -> None:
    found = summary_of({"shuffle": rising(-0.5), "clustered": rising(1), "easy_to_hard": rising(-1)})
    for arm in ("clustered", "easy_to_hard"):
        row = found[arm]
        assert (row["step_ratio"], row["step_ratio_low"], row["step_ratio_high"], row["ratio_bound"]) == (None,) * 4
        assert row["time_ratio"] is None
        assert row["final_difference_low"] is not None
        json.dumps(row, allow_nan=False)
    assert "had 10.0% before its first step, so that no steps can be counted" in verdict_of(
        found["clustered"], n_steps=100
    )
    assert judge_arm(found["clustered"]) is None


def test_what_only_some_samples_reach_has_an_open_interval() -> None:
    def halting(step: float, seed: int) -> float:
        return rising(1.6 if seed else 0.5)(step, seed)

    row = summary_of({"shuffle": rising(1), "clustered": halting})["clustered"]
    assert row["ratio_bound"] == "exact"
    assert row["step_ratio"] < 1  # type: ignore[operator]
    assert row["step_ratio_high"] is None
    assert judge_arm(row) is None
    assert interval_of(row).startswith("over 0.")


def test_seeds_that_disagree_show_no_difference() -> None:
    def unsteady(step: float, seed: int) -> float:
        return rising(2 if seed % 2 else 0.5)(step, seed)

    row = summary_of({"shuffle": rising(1), "clustered": unsteady})["clustered"]
    assert row["step_ratio_low"] < 1  # type: ignore[operator]
    assert row["step_ratio_high"] is None, "some samples do not get there"
    assert "no difference could be shown" in verdict_of(row, n_steps=100)


def test_one_seed_has_no_interval_and_no_verdict() -> None:
    row = summary_of({"shuffle": rising(1), "clustered": rising(2)}, n_seeds=1)["clustered"]
    assert row["step_ratio"] == pytest.approx(0.5)
    assert row["step_ratio_low"] is None
    assert verdict_of(row, n_steps=100).endswith("(1 seed): 5 seeds at least make a verdict.")


def test_two_seeds_that_agree_are_no_verdict() -> None:
    row = summary_of({"shuffle": rising(1), "clustered": rising(2)}, n_seeds=2)["clustered"]
    assert row["step_ratio_high"] < 1  # type: ignore[operator]
    assert judge_arm(row) is None
    assert verdict_of(row, n_steps=100).endswith("(2 seeds): 5 seeds at least make a verdict.")


def test_a_target_that_the_spec_names_is_the_same_for_all() -> None:
    found = summary_of({"shuffle": rising(1), "clustered": rising(2)}, target=0.4)
    assert {row["target"] for row in found.values()} == {0.4}
    assert found["shuffle"]["steps_to_target"] == pytest.approx(50)
    assert found["clustered"]["step_ratio"] == pytest.approx(0.5)


def test_of_a_target_that_nobody_reaches_nothing_is_known() -> None:
    found = summary_of({"shuffle": rising(1), "clustered": rising(1.5)}, target=0.99)
    row = found["clustered"]
    assert all(one["is_censored"] for one in found.values())
    assert (row["step_ratio"], row["step_ratio_low"], row["ratio_bound"]) == (None, None, None)
    assert verdict_of(row, n_steps=100).startswith("neither clustered nor shuffle reached 99.0% in 100 steps")


def test_a_target_that_shuffle_does_not_reach_bounds_the_ratio_from_above() -> None:
    row = summary_of({"shuffle": rising(1), "clustered": rising(2)}, target=0.7)["clustered"]
    assert (row["ratio_bound"], row["step_ratio"]) == ("at_most", pytest.approx(0.625))
    assert row["step_ratio_low"] == 0
    assert verdict_of(row, n_steps=100).startswith("clustered reached 70.0% in at most 0.62 of shuffle's steps")
    assert judge_arm(row) == "better"


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


def test_five_seeds_cover_the_true_ratio_about_as_often_as_they_claim() -> None:
    rng = np.random.default_rng(1)
    n_trials, n_seeds, n_held = 120, 5, 0
    for _ in range(n_trials):
        speeds = {"shuffle": rng.normal(1.0, 0.1, n_seeds), "clustered": rng.normal(1.25, 0.15, n_seeds)}
        curves: dict[str, Callable[[float, int], float]] = {
            arm: lambda step, seed, arm=arm: 0.2 + 0.004 * speeds[arm][seed] * step  # type: ignore[misc] # noqa: B023
            for arm in speeds
        }
        row = summarise_trial(evaluated(curves), target=None, seed=0).filter(arm="clustered").to_dicts()[0]
        n_held += row["step_ratio_low"] <= 1 / 1.25 and (row["step_ratio_high"] or np.inf) >= 1 / 1.25
    assert n_held / n_trials > 0.9


def test_the_distinct_samples_are_those_of_drawing_with_replacement() -> None:
    shares, weights = _samples(3, 0)
    assert len(shares) == 10
    assert weights.sum() == pytest.approx(1)
    assert np.allclose(weights @ shares, 1 / 3)
    assert weights[np.flatnonzero((shares == 1 / 3).all(axis=1))[0]] == pytest.approx(6 / 27)
    many, even = _samples(12, 0)
    assert np.allclose(many.sum(axis=1), 1)
    assert even.sum() == pytest.approx(1)


def test_the_final_difference_has_the_interval_of_student() -> None:
    whole = evaluated({"shuffle": rising(1), "clustered": lambda step, seed: rising(1)(step, seed) + 0.01 * seed})
    row = summarise_trial(whole, target=None, seed=0).filter(arm="clustered").to_dicts()[0]
    differences = np.arange(5) * 0.01
    half = 2.7764 * differences.std(ddof=1) / np.sqrt(5)
    assert row["final_difference_low"] == pytest.approx(0.02 - half, abs=1e-5)
    assert row["final_difference_high"] == pytest.approx(0.02 + half, abs=1e-5)


def test_what_the_signals_cost_is_counted_in() -> None:
    evaluations = evaluated({"shuffle": rising(1), "clustered": rising(2), "easy_to_hard": rising(0.5)})
    costs = {"clustered": SignalCost(30.0, 10.0), "easy_to_hard": SignalCost(20.0, 0.0)}
    found = {row["arm"]: row for row in summarise_trial(evaluations, target=None, seed=0, costs=costs).to_dicts()}
    assert (found["shuffle"]["signal_seconds"], found["shuffle"]["time_ratio"]) == (0.0, 1.0)
    assert (found["clustered"]["signal_seconds"], found["clustered"]["signal_gpu_seconds"]) == (30.0, 10.0)
    assert found["clustered"]["time_ratio"] == pytest.approx((50 + 30) / 100), "a step takes a second"
    assert found["easy_to_hard"]["time_ratio"] == pytest.approx(1.2)
    unknown = summarise_trial(evaluations, target=None, seed=0).filter(pl.col("arm") != "shuffle")
    assert unknown["time_ratio"].null_count() == unknown.height


def test_those_that_never_get_there_stand_last_the_best_of_them_first() -> None:
    found = summarise_trial(
        evaluated({"shuffle": rising(1), "a": rising(0.2), "b": rising(0.4), "c": rising(2)}), target=None, seed=0
    )
    assert found["arm"].to_list() == ["shuffle", "c", "b", "a"]
    assert all(verdict.startswith(arm) for arm, verdict in found.select("arm", "verdict").iter_rows())
