"""What a plan says, held against what a run does."""

from __future__ import annotations

import pytest

from saerl_assets.automation.estimate import Estimate, estimate
from saerl_assets.domain.errors import SaerlError
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.home import HomeResource
from saerl_assets_tests.tiny import KEY, N_DUPLICATES, N_PROMPTS, N_REJECTED, TRAINED_SAE, TinyWorld


def plan(home: HomeResource, key: str = KEY) -> Estimate:
    return estimate(home, ComputeResource(device="cpu"), key)


def test_the_counts_are_those_of_the_run(
    tiny_world: TinyWorld, fresh_home: HomeResource, tiny_home: HomeResource
) -> None:
    tiny_world.register(fresh_home)
    before, after = plan(fresh_home), plan(tiny_home)
    assert before.n_rows == after.n_rows == N_PROMPTS + N_DUPLICATES + N_REJECTED
    assert before.n_prompts == after.n_prompts == N_PROMPTS
    assert before.n_rejected == after.n_rejected == N_REJECTED
    n_tokens = tiny_home.warehouse().rows("prompts", ["n_tokens"])["n_tokens"].sum()
    assert before.n_tokens == before.n_tokens_to_read == after.n_tokens == n_tokens
    assert before.n_training_tokens == 0, "the SAE is loaded"
    assert before.seconds_reading > 0
    assert "matrix product" in before.basis


def test_what_was_read_is_not_read_again(tiny_home: HomeResource) -> None:
    after = plan(tiny_home)
    assert after.n_texts_read_before == N_PROMPTS
    assert after.n_tokens_to_read == 0
    assert after.seconds_reading == 0
    assert "measured" in after.basis


def test_training_an_sae_costs_time_and_memory(tiny_world: TinyWorld, fresh_home: HomeResource) -> None:
    tiny_world.register(fresh_home)
    tiny_world.register(fresh_home, "trained-v1", sae=TRAINED_SAE)
    loaded, trained = plan(fresh_home), plan(fresh_home, "trained-v1")
    assert trained.n_training_tokens == TRAINED_SAE["training_tokens"]
    assert trained.seconds_training > loaded.seconds_training == 0
    assert trained.disk_bytes > loaded.disk_bytes


def test_a_child_reads_only_what_its_parent_has_not(tiny_world: TinyWorld, copied_home: HomeResource) -> None:
    tiny_world.register(copied_home, "child-v1", parent=KEY, sae=None)
    child = plan(copied_home, "child-v1")
    assert child.n_texts_read_before == N_PROMPTS
    assert child.n_training_tokens == 0


def test_it_can_be_read_by_people_and_by_scripts(tiny_home: HomeResource) -> None:
    found = plan(tiny_home)
    assert found.as_dict()["n_prompts"] == N_PROMPTS
    words = [" ".join(line) for line in found.lines()]
    assert any("memory about" in line and "GB" in line for line in words)
    assert any("time about" in line for line in words)


def test_health_and_evidence_cost_time(
    tiny_world: TinyWorld, fresh_home: HomeResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ComputeResource, "matmul_flops", lambda _self: 1e11)
    tiny_world.register(fresh_home)
    tiny_world.register(fresh_home, "spare-v1", sae={"health_tokens": 0}, labels=None)
    both, topic_alone = plan(fresh_home), plan(fresh_home, "spare-v1")
    assert both.seconds_health > topic_alone.seconds_health == 0
    assert both.seconds_evidence == 3 * topic_alone.seconds_evidence > 0


def test_the_order_has_no_more_batches_than_the_plan_said(tiny_home: HomeResource) -> None:
    manifest = tiny_home.warehouse().rows("batch_manifest", dataset_version=KEY)
    n_batches = manifest.filter(arm="shuffle").select("epoch", "step").n_unique()
    assert 0 < n_batches <= plan(tiny_home).n_batches < N_PROMPTS


def test_a_range_of_difficulty_makes_fewer_batches(tiny_world: TinyWorld, fresh_home: HomeResource) -> None:
    tiny_world.register(fresh_home)
    tiny_world.register(fresh_home, "half-v1", difficulty={"max_rank": 0.5})
    tiny_world.register(fresh_home, "twice-v1", difficulty={"max_rank": 0.5}, batches={"epochs": 2})
    every, half = plan(fresh_home).n_batches, plan(fresh_home, "half-v1").n_batches
    assert half in {every // 2, (every + 1) // 2}
    assert plan(fresh_home, "twice-v1").n_batches == 2 * half


def test_a_trial_is_counted_and_too_long_a_one_refused(tiny_world: TinyWorld, fresh_home: HomeResource) -> None:
    trial: dict[str, object] = {"policy": "path:policy", "verifier": "exact", "n_seeds": 3}
    tiny_world.register(fresh_home, "asks-v1", trial=trial | {"arms": ["clustered"], "n_steps": 2})
    found = plan(fresh_home, "asks-v1")
    assert (found.n_trainings, found.n_trial_steps) == (6, 2)
    assert any("6 trainings of 2 steps" in " ".join(line) for line in found.lines())
    tiny_world.register(fresh_home, "all-v1", trial=trial)
    every = plan(fresh_home, "all-v1")
    assert every.n_trainings > 6
    assert every.n_trial_steps == every.n_batches
    tiny_world.register(fresh_home, "long-v1", trial=trial | {"n_steps": every.n_batches + 1})
    with pytest.raises(SaerlError, match=f"{every.n_batches} batches at most") as refused:
        plan(fresh_home, "long-v1")
    assert refused.value.code == "too_few_steps"
