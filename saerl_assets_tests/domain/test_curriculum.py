"""The next epoch from what a training measured, and which prompts it takes."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saerl_assets.domain.batches import plan_manifest
from saerl_assets.domain.curriculum import (
    Epoch,
    batches_of,
    epoch_of,
    first_epoch,
    lock_prompts,
    moved_target,
    next_epoch,
    step_row,
)
from saerl_assets.domain.spec import BatchSpec, FeedbackSpec

N_STEPS = 12


def candidates(n: int = 120, *, n_dropped: int = 10, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "prompt_id": [f"p{place:03}" for place in range(n)],
            "n_tokens": pl.Series(rng.integers(3, 40, n), dtype=pl.UInt32),
            "cluster_id": pl.Series(rng.integers(0, 5, n), dtype=pl.UInt32),
            "difficulty": np.round(rng.normal(size=n), 1),
            "kept": np.arange(n) % (n // n_dropped) != 0,
            "quality": rng.random(n),
        }
    )


def log(values: list[float], *, measure: str = "reward", prompts: int = 3) -> pl.DataFrame:
    """Feedback with this mean at each step."""
    rows = [
        {"step": step, "prompt_id": f"p{place}", measure: value + shift}
        for step, value in enumerate(values)
        for place, shift in zip(range(prompts), (-0.1, 0.0, 0.1), strict=True)
    ]
    return pl.DataFrame(rows)


def decided(values: list[float], feedback: FeedbackSpec, now: Epoch | None = None) -> Epoch | None:
    spec = BatchSpec(batch_size=8, feedback=feedback)
    return next_epoch(now or first_epoch(spec, feedback), "m0", log(values), N_STEPS, spec, feedback)


STAGES = FeedbackSpec(threshold=0.6, window_steps=4)


def test_the_next_part_is_unlocked_as_soon_as_the_window_passes() -> None:
    assert decided([0.9, 0.9, 0.9], STAGES) is None, "three steps are no window of four"
    assert decided([0.0, 0.2, 0.4, 0.5, 0.5, 0.6], STAGES) is None
    found = decided([0.0, 0.2, 0.5, 0.6, 0.65, 0.7], STAGES)
    assert found is not None
    assert (found.number, found.decision, found.n_stages, found.parent_manifest_id) == (1, "unlocked", 2, "m0")
    assert found.measured == pytest.approx(0.6125)
    assert found.n_steps_measured == 4
    assert "0.6125" in found.explanation


def test_an_epoch_that_ends_without_passing_is_repeated() -> None:
    assert decided([0.1] * (N_STEPS - 1), STAGES) is None
    found = decided([0.1] * N_STEPS, STAGES)
    assert found is not None
    assert (found.number, found.decision, found.n_stages) == (1, "repeated", 1)


def test_once_all_parts_are_unlocked_epochs_go_on() -> None:
    now = Epoch(3, "unlocked", "", n_stages=4)
    found = decided([0.9] * 6, STAGES, now)
    assert found is not None
    assert (found.number, found.decision, found.n_stages) == (4, "repeated", 4)
    assert "all 4 parts" in found.explanation


def test_a_loss_passes_from_above() -> None:
    feedback = FeedbackSpec(measure="loss", threshold=0.5, window_steps=2)
    spec = BatchSpec(feedback=feedback)
    now = first_epoch(spec, feedback)
    high, low = (log([value] * 3, measure="loss") for value in (0.9, 0.3))
    assert next_epoch(now, "m", high, N_STEPS, spec, feedback) is None
    found = next_epoch(now, "m", low, N_STEPS, spec, feedback)
    assert found is not None
    assert found.n_stages == 2


def test_a_log_without_the_measure_decides_nothing() -> None:
    empty = log([0.9] * N_STEPS).with_columns(reward=pl.lit(None, pl.Float64))
    spec = BatchSpec(feedback=STAGES)
    assert next_epoch(first_epoch(spec, STAGES), "m", empty, N_STEPS, spec, STAGES) is None


TARGET = FeedbackSpec(rule="target", first_target=0.2)


def test_the_target_moves_as_in_adarft() -> None:
    """Algorithm 1 of arXiv 2504.05520 with its eta = 50, alpha = 2 and beta = 0.5 on 0 to 100, divided by 100."""
    for reward in (0.0, 0.3, 0.5, 0.75, 1.0):
        published = min(100.0, max(0.0, 20.0 + 50.0 * math.tanh(2.0 * (reward - 0.5))))
        assert moved_target(0.2, reward, TARGET) == pytest.approx(published / 100.0)
    assert decided([0.9] * (N_STEPS - 1), TARGET) is None, "the epoch is not over"
    found = decided([0.9] * N_STEPS, TARGET)
    assert found is not None
    assert (found.number, found.decision) == (1, "moved")
    assert found.target == pytest.approx(0.2 + 0.5 * math.tanh(0.8))


@given(st.floats(0, 1), st.floats(-2, 3))
def test_the_target_stays_in_range_and_answers_in_the_right_direction(target: float, reward: float) -> None:
    moved = moved_target(target, reward, TARGET)
    assert 0.0 <= moved <= 1.0
    assert (moved - target) * (reward - TARGET.wanted_reward) >= 0.0


@pytest.mark.parametrize("n_stages", [1, 2, 3, 4])
def test_the_unlocked_parts_are_the_easiest_and_of_equal_size(n_stages: int) -> None:
    spec = BatchSpec(batch_size=8, feedback=STAGES)
    locked = lock_prompts(candidates(), Epoch(0, "started", "", n_stages=n_stages), spec, STAGES)
    kept = locked.filter("kept")
    opened, shut = kept.filter(pl.col("not_unlocked").is_null()), kept.filter(pl.col("not_unlocked").is_not_null())
    assert opened.height == math.ceil(kept.height * n_stages / 4)
    if shut.height:
        assert float(opened["difficulty"].max()) <= float(shut["difficulty"].min())  # type: ignore[arg-type]
        assert "by difficulty" in shut["not_unlocked"][0]


@given(target=st.floats(0, 1), seed=st.integers(0, 20))
def test_the_target_rule_takes_the_nearest(target: float, seed: int) -> None:
    spec = BatchSpec(batch_size=8, feedback=TARGET)
    locked = lock_prompts(candidates(seed=seed), Epoch(0, "started", "", target=target), spec, TARGET)
    kept = locked.filter("kept").sort("difficulty", "prompt_id")
    rank = np.arange(kept.height) / (kept.height - 1)
    is_open = kept["not_unlocked"].is_null().to_numpy()
    assert is_open.sum() == round(0.25 * kept.height)
    assert np.abs(rank - target)[is_open].max() <= np.abs(rank - target)[~is_open].min() + 1e-12


@pytest.mark.parametrize("feedback", [STAGES, TARGET], ids=["stages", "target"])
def test_every_prompt_is_in_the_plan_or_deferred_with_its_reason(feedback: FeedbackSpec) -> None:
    spec = BatchSpec(batch_size=8, feedback=feedback, curriculum="staged")
    epoch = first_epoch(spec, feedback)
    locked = lock_prompts(candidates(), epoch, spec, feedback)
    planned = plan_manifest(locked, batches_of(spec, epoch), key="a-v1", seed=1)
    for (_, _), rows in planned.manifest.group_by("arm", "epoch"):
        arm = rows["arm"][0]
        deferred = planned.deferred.filter(pl.col("arm") == arm)
        assert set(rows["prompt_id"]) | set(deferred["prompt_id"]) == set(locked["prompt_id"])
        assert not set(rows["prompt_id"]) & set(deferred["prompt_id"])
        assert "not_unlocked" in set(deferred["reason_code"])
    opened = set(locked.filter(pl.col("not_unlocked").is_null())["prompt_id"])
    assert set(planned.manifest["prompt_id"]) <= opened
    other_order = locked.sample(fraction=1, shuffle=True, seed=3)
    shuffled = plan_manifest(other_order, batches_of(spec, epoch), key="a-v1", seed=1)
    assert shuffled.manifest_id == planned.manifest_id


def test_an_epoch_survives_its_row() -> None:
    epoch = Epoch(3, "moved", "why", "m2", target=0.25, measured=0.5, n_steps_measured=7)
    assert epoch_of(step_row(epoch, "m3", TARGET).row(0, named=True)) == epoch


def test_a_recorded_training_walks_through_all_parts() -> None:
    """A log in which the reward rises within each epoch and falls at each new part: one manifest after the other."""
    feedback = FeedbackSpec(threshold=0.6, window_steps=2)
    spec = BatchSpec(batch_size=8, feedback=feedback, curriculum="staged", tail="drop")
    epoch, manifests, sizes = first_epoch(spec, feedback), [], []
    for _ in range(5):
        locked = lock_prompts(candidates(), epoch, spec, feedback)
        planned = plan_manifest(locked, batches_of(spec, epoch), key="a-v1", seed=1)
        exported = planned.manifest.filter(pl.col("arm") == spec.planner)
        manifests.append(planned.manifest_id)
        sizes.append(exported["prompt_id"].n_unique())
        assert exported["epoch"].unique().to_list() == [epoch.number]
        n_steps = exported["step"].n_unique()
        rising = [0.3 + 0.5 * step / max(n_steps - 1, 1) for step in range(n_steps)]
        recorded = exported.select("step", "prompt_id").with_columns(
            reward=pl.col("step").replace_strict(range(n_steps), rising, return_dtype=pl.Float64)
        )
        following = next_epoch(epoch, planned.manifest_id, recorded, n_steps, spec, feedback)
        assert following is not None
        assert following.parent_manifest_id == planned.manifest_id
        epoch = following
    assert len(set(manifests)) == 5
    assert sizes == sorted(sizes)
    assert sizes[3] == sizes[4] == 104
