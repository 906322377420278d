"""Labels from the policy itself, through the graph: made, resumed, shared, and told where they cannot be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from saerl_assets import definitions
from saerl_assets.automation.estimate import estimate
from saerl_assets.automation.runs import open_instance
from saerl_assets.automation.summary import describe_version, run_version
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.progress import silent
from saerl_assets.models.rollouts import Ask, Completion, Sampling, TransformersGenerator
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.rollouts import RolledOut, roll_out
from saerl_assets.storage.shards import ShardStore
from saerl_assets_tests import verifiers
from saerl_assets_tests.tiny import KEY, N_PROMPTS, TinyWorld, make_world, write_model

FIRST, SECOND = "asked-v1", "asked-v2"
N_ASKED, N_ROLLOUTS, PER_SHARD = 60, 4, 16
OUTCOMES: dict[str, object] = {
    "policy": "path:policy",
    "verifier": "saerl_assets_tests.verifiers:by_level",
    "n_prompts": N_ASKED,
    "n_rollouts": N_ROLLOUTS,
    "max_new_tokens": 8,
}
MADE_LATER = "made_at"
"""When a rollout was made is the one thing that differs between two runs."""

KILLED_OFTEN = """
import os, random, shutil, signal, sys, time

import torch

from saerl_assets.domain.progress import silent
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.rollouts import roll_out

torch.set_num_threads(1)
home, key, n_kills = HomeResource(root=sys.argv[1]), sys.argv[2], 10
compute = ComputeResource(texts_per_shard=4)

def started(out=None):
    child = os.fork()
    if child == 0:  # the tables are read here: polars has threads, which a fork does not take along
        frames = [home.warehouse().rows(name, dataset_version=key) for name in ("prompts", "cluster_assignments")]
        done = roll_out(home, compute, home.version(key), *frames, silent)
        if out:
            done.rollouts.write_parquet(out)
        os._exit(0)
    return child


begun = time.monotonic()
assert os.waitpid(started(sys.argv[3]), 0)[1] == 0
duration = time.monotonic() - begun
shutil.rmtree(home.open().work(key) / "rollouts")
moments, n_killed = random.Random(0), 0
while n_killed < n_kills:
    child = started()
    time.sleep(moments.uniform(0, duration / 2))
    os.kill(child, signal.SIGKILL)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL:
        n_killed += 1
    else:  # it was faster: begin anew
        shutil.rmtree(home.open().work(key) / "rollouts")
assert os.waitpid(started(sys.argv[4]), 0)[1] == 0
print(f"{n_killed} kills")
"""
"""Sampling killed at random moments; the children share the imports of one process, so that it takes seconds."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    """The tiny world with a policy beside its reader."""
    made = make_world(tmp_path_factory.mktemp("asked"))
    write_model(made.folder / "policy", has_head=True, seed=1)
    return made


@pytest.fixture(scope="module")
def built(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> HomeResource:
    """A home with the first version built to its end. To be read, never changed."""
    home = HomeResource(root=str(tmp_path_factory.mktemp("built") / "home"))
    world.register(home, FIRST, labels=None, outcomes=OUTCOMES)
    done = run_version(home, FIRST)
    assert done.success, done.failure
    return home


@pytest.fixture
def copied(built: HomeResource, tmp_path: Path) -> HomeResource:
    """A copy of the built home that a test may change."""
    shutil.copytree(built.open().root, tmp_path / "home")
    return HomeResource(root=str(tmp_path / "home"))


@pytest.fixture
def unanswered(copied: HomeResource) -> HomeResource:
    """A copy in which nothing is missing but the rollouts."""
    with copied.warehouse().writing("forget") as connection:
        connection.execute("DELETE FROM rollouts")
    return copied


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Rollouts that the policy is asked for in this process, in shards of a few."""
    compute = ComputeResource(texts_per_shard=PER_SHARD)
    monkeypatch.setattr(definitions, "defs", definitions.build_definitions(compute=compute))
    ids: list[str] = []
    complete = TransformersGenerator.complete

    def counted(self: TransformersGenerator, asks: Sequence[Ask], sampling: Sampling) -> list[Completion]:
        ids.extend(ask.rollout_id for ask in asks)
        return complete(self, asks, sampling)

    monkeypatch.setattr(TransformersGenerator, "complete", counted)
    return ids


def rows(home: HomeResource, table: str, key: str = FIRST) -> pl.DataFrame:
    return home.warehouse().rows(table, dataset_version=key).drop("dataset_version")


def roll(home: HomeResource, key: str = FIRST, per_shard: int = PER_SHARD) -> RolledOut:
    """What the asset does of a version, with the prompts and clusters of the first one, which are the same."""
    prompts, clusters = (
        home.warehouse().rows(name, dataset_version=FIRST) for name in ("prompts", "cluster_assignments")
    )
    return roll_out(home, ComputeResource(texts_per_shard=per_shard), home.version(key), prompts, clusters, silent)


def numbers(home: HomeResource, asset: str, key: str) -> dict[str, object]:
    """Metadata of the newest materialisation."""
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[key])
    with open_instance(home.open().dagster) as instance:
        (record,) = instance.fetch_materializations(wanted, limit=1).records
    assert record.asset_materialization
    return {name: value.value for name, value in record.asset_materialization.metadata.items()}


# ---------------------------------------------------------------- what comes of it


def test_both_signals_are_learned_from_the_policys_answers_alone(built: HomeResource) -> None:
    rollouts, outcomes, labels = (rows(built, name) for name in ("rollouts", "outcomes", "labels"))
    assert rollouts.height == N_ASKED * N_ROLLOUTS
    assert outcomes.height == N_ASKED
    assert set(rollouts["score"]) == {0.0, 1.0}
    assert set(rollouts["engine"]) == {"transformers"}
    prompts, clusters = rows(built, "prompts"), rows(built, "cluster_assignments")
    train = clusters.join(prompts.filter(split="train"), on="prompt_id", how="semi")
    assert set(outcomes.filter(split="train")["cluster_id"]) == set(train["cluster_id"])
    assert outcomes.filter(split="evaluation").height > 0
    correct = labels.filter(label="correct").join(outcomes, on="prompt_id")
    assert (correct["value"] - correct["pass_rate"]).abs().max() == pytest.approx(0.0)
    difficulty = labels.filter(label="difficulty").join(outcomes, on="prompt_id")
    assert (1 - difficulty["value"] - difficulty["pass_rate"]).abs().max() == pytest.approx(0.0)
    assert set(labels["n_observations"]) == {N_ROLLOUTS}
    assert set(rows(built, "label_observations")["source"]) == {"rollouts"}
    assert "proxy" in set(rows(built, "difficulty_proxy")["score_name"])
    assert rows(built, "quality_probe")["auroc"].null_count() == 0
    assert set(rows(built, "signal_evidence")["label"]) >= {"correct", "difficulty"}


def test_other_clusters_and_later_labels_make_no_answer_due(copied: HomeResource) -> None:
    def due() -> set[str]:
        return {stage.asset for stage in describe_version(copied, FIRST).stages if stage.is_due}

    assert due() == set()
    assert run_version(copied, FIRST, only=["clusters"]).success
    assert "batch_manifest" in due()
    assert not {"rollouts", "outcomes", "labels", "difficulty_scores"} & due()
    assert run_version(copied, FIRST, only=["prompts"]).success
    assert {"rollouts", "outcomes", "labels", "difficulty_scores"} <= due()


def test_it_is_told_in_the_ui_and_in_the_report(built: HomeResource) -> None:
    told = numbers(built, "rollouts", FIRST)
    assert told["rollouts_made"] == N_ASKED * N_ROLLOUTS
    assert (told["rollouts_reused"], told["rollouts_resumed"], told["prompts_too_long"]) == (0, 0, 0)
    assert float(str(told["tokens_per_second"])) > 0
    assert "figure" in told
    page = (built.open().reports / f"{FIRST}.html").read_text()
    assert "answered by the policy itself" in page
    assert not (built.open().work(FIRST) / "rollouts").exists() or not any(
        (built.open().work(FIRST) / "rollouts").iterdir()
    )


def test_a_version_without_outcomes_has_empty_tables(tiny_home: HomeResource) -> None:
    for name in ("rollouts", "outcomes"):
        assert tiny_home.warehouse().rows(name, dataset_version=KEY).is_empty()


def test_a_plan_counts_what_is_yet_to_be_answered(
    world: TinyWorld, built: HomeResource, fresh_home: HomeResource
) -> None:
    world.register(fresh_home, FIRST, labels=None, outcomes=OUTCOMES)
    before = estimate(fresh_home, ComputeResource(device="cpu"), FIRST)
    assert before.n_rollouts == N_ASKED * N_ROLLOUTS
    assert before.seconds_rollouts > 0
    assert any("240 answers, at most" in " ".join(line) for line in before.lines())
    after = estimate(built, ComputeResource(device="cpu"), FIRST)
    assert (after.n_rollouts, after.seconds_rollouts) == (0, 0.0)
    assert not any("answers" in " ".join(line) for line in after.lines())


# ---------------------------------------------------------------- again


def test_again_nothing_is_asked_and_nothing_is_observed_twice(copied: HomeResource, asked: list[str]) -> None:
    before = {name: rows(copied, name) for name in ("rollouts", "outcomes", "labels", "label_observations")}
    assert run_version(copied, FIRST, only=["rollouts", "labels"]).success
    assert asked == []
    assert {name: rows(copied, name).equals(frame) for name, frame in before.items()} == dict.fromkeys(before, True)


def test_a_child_takes_over_what_was_asked_and_asks_only_for_more(
    copied: HomeResource, world: TinyWorld, asked: list[str]
) -> None:
    world.register(copied, SECOND, parent=FIRST, labels=None, outcomes=OUTCOMES, batches={"batch_size": 4})
    assert run_version(copied, SECOND).success
    assert asked == []
    first, second = rows(copied, "rollouts"), rows(copied, "rollouts", SECOND)
    assert second.equals(first)
    assert numbers(copied, "rollouts", SECOND)["rollouts_reused"] == first.height
    assert rows(copied, "labels", SECOND).equals(rows(copied, "labels"))


def test_more_prompts_and_more_answers_cost_only_what_is_new(
    copied: HomeResource, world: TinyWorld, asked: list[str]
) -> None:
    more = OUTCOMES | {"n_prompts": 80, "n_rollouts": N_ROLLOUTS + 1}
    world.register(copied, SECOND, parent=FIRST, labels=None, outcomes=more)
    first, second = rows(copied, "rollouts"), roll(copied, SECOND).rollouts
    assert second.height == 80 * (N_ROLLOUTS + 1)
    known = set(first["rollout_id"]) & set(second["rollout_id"])
    assert sorted(asked) == sorted(set(second["rollout_id"]) - known)
    assert len(known) > 0.9 * first.height
    assert second.join(first, on="rollout_id").select((pl.col("completion") == pl.col("completion_right")).all()).item()


def test_another_verifier_scores_the_same_answers_again(
    copied: HomeResource, world: TinyWorld, asked: list[str]
) -> None:
    world.register(copied, SECOND, parent=FIRST, labels=None, outcomes=OUTCOMES | {"verifier": "exact"})
    first, second = rows(copied, "rollouts"), roll(copied, SECOND).rollouts
    assert asked == []
    assert second["completion"].equals(first["completion"])
    assert set(second["verifier"]) == {"exact"}
    assert second["score"].sum() < first["score"].sum()


# ---------------------------------------------------------------- interrupted


def test_what_was_sampled_before_it_failed_is_not_sampled_again(
    unanswered: HomeResource, built: HomeResource, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, n_written = ShardStore.write, 0

    def fail_later(self: ShardStore, shard_id: str, frames: dict[str, object]) -> None:
        nonlocal n_written
        write(self, shard_id, frames)
        n_written += 1
        if n_written == 3:
            raise RuntimeError("the machine went away")

    with monkeypatch.context() as patch:
        patch.setattr(ShardStore, "write", fail_later)
        assert not run_version(unanswered, FIRST, only=["rollouts"]).success
    assert rows(unanswered, "rollouts").is_empty()
    assert len(asked) == 3 * PER_SHARD
    asked.clear()
    assert run_version(unanswered, FIRST, only=["rollouts"]).success
    assert len(asked) == N_ASKED * N_ROLLOUTS - 3 * PER_SHARD
    assert numbers(unanswered, "rollouts", FIRST)["rollouts_resumed"] == 3 * PER_SHARD
    assert rows(unanswered, "rollouts").drop(MADE_LATER).equals(rows(built, "rollouts").drop(MADE_LATER))


def test_a_damaged_shard_is_sampled_again(unanswered: HomeResource, asked: list[str]) -> None:
    before = roll(unanswered)
    files = sorted((unanswered.open().work(FIRST) / "rollouts").rglob("*.parquet"))
    assert len(files) == N_ASKED * N_ROLLOUTS // PER_SHARD
    files[0].write_bytes(files[0].read_bytes()[:-40] + b"x" * 40)
    asked.clear()
    after = roll(unanswered)
    assert len(asked) == PER_SHARD
    assert after.rollouts.drop(MADE_LATER).equals(before.rollouts.drop(MADE_LATER))
    after.forget()
    assert list((unanswered.open().work(FIRST) / "rollouts").rglob("*.parquet")) == []


def test_shards_of_another_size_are_used_as_they_are(unanswered: HomeResource, asked: list[str]) -> None:
    roll(unanswered)
    asked.clear()
    roll(unanswered, per_shard=7)
    assert asked == []


@pytest.mark.slow
def test_sampling_killed_at_random_moments_ends_with_the_same_rows(unanswered: HomeResource, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("undisturbed.parquet", "killed.parquet")]
    driver = [sys.executable, "-c", KILLED_OFTEN, unanswered.root, FIRST, *map(str, files)]
    done = subprocess.run(driver, env=dict(os.environ), capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("10 kills"), done.stdout
    undisturbed, killed = (pl.read_parquet(file).drop(MADE_LATER) for file in files)
    assert undisturbed.height == N_ASKED * N_ROLLOUTS
    assert killed.equals(undisturbed)


# ---------------------------------------------------------------- what cannot be done


def code_of(home: HomeResource, key: str = FIRST) -> str:
    with pytest.raises(SaerlError) as raised:
        roll(home, key)
    return raised.value.code


def test_a_policy_that_changed_is_told(copied: HomeResource, world: TinyWorld, tmp_path: Path) -> None:
    policy, kept = world.folder / "policy", tmp_path / "kept"
    policy.rename(kept)
    try:
        write_model(policy, has_head=True, seed=2)
        assert code_of(copied) == "policy_changed"
    finally:
        shutil.rmtree(policy)
        kept.rename(policy)
    assert roll(copied).rollouts.equals(rows(copied, "rollouts"))


def test_a_verifier_that_cannot_be_found_is_told_before_anything_is_sampled(
    unanswered: HomeResource, world: TinyWorld, asked: list[str]
) -> None:
    world.register(unanswered, SECOND, parent=FIRST, labels=None, outcomes=OUTCOMES | {"verifier": "nowhere:score"})
    assert code_of(unanswered, SECOND) == "unknown_verifier"
    assert asked == []


def test_answers_survive_a_verifier_that_fails(
    unanswered: HomeResource, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(verifiers, "by_level", verifiers.broken)
        assert code_of(unanswered) == "verifier_failed"
    assert len(asked) == N_ASKED * N_ROLLOUTS
    asked.clear()
    assert roll(unanswered).rollouts.height == N_ASKED * N_ROLLOUTS
    assert asked == [], "they are scored, not sampled again"


def test_prompts_that_do_not_fit_the_policy_are_left_out_and_counted(
    copied: HomeResource, world: TinyWorld, asked: list[str]
) -> None:
    context, some_characters = 256, 40
    tight = OUTCOMES | {"max_new_tokens": context - some_characters, "n_prompts": N_PROMPTS, "n_rollouts": 1}
    world.register(copied, SECOND, parent=FIRST, labels=None, outcomes=tight)
    done = roll(copied, SECOND)
    assert 0 < int(done.figures["prompts_too_long"]) < N_PROMPTS
    assert int(done.figures["prompts_too_long"]) + int(done.figures["prompts_answered"]) == N_PROMPTS
    assert len(asked) == done.outcomes.height == done.figures["prompts_answered"]

    world.register(copied, "asked-v3", parent=FIRST, labels=None, outcomes=OUTCOMES | {"max_new_tokens": 300})
    assert code_of(copied, "asked-v3") == "no_prompt_to_answer"


def test_prompts_without_answers_cannot_be_compared(copied: HomeResource, world: TinyWorld) -> None:
    world.register(copied, SECOND, parent=FIRST, labels=None, outcomes=OUTCOMES | {"verifier": "exact"})
    with copied.warehouse().writing("forget") as connection:
        connection.execute("UPDATE prompts SET answer = NULL")
    assert code_of(copied, SECOND) == "no_prompt_to_answer"


def test_a_policy_without_a_chat_template_names_the_section(copied: HomeResource, world: TinyWorld) -> None:
    shutil.copytree(world.folder / "policy", world.folder / "plain")
    (world.folder / "plain" / "chat_template.jinja").unlink()
    world.register(copied, SECOND, parent=FIRST, labels=None, outcomes=OUTCOMES | {"policy": "path:plain"})
    with pytest.raises(SaerlError, match=r"outcomes\.template") as raised:
        roll(copied, SECOND)
    assert raised.value.code == "no_chat_template"


def test_a_source_that_is_none_names_the_key(copied: HomeResource, world: TinyWorld) -> None:
    world.register(copied, SECOND, parent=FIRST, labels=None, outcomes=OUTCOMES | {"policy": "gpt"})
    with pytest.raises(SaerlError, match=r"outcomes\.policy") as raised:
        roll(copied, SECOND)
    assert raised.value.code == "unknown_model_source"
