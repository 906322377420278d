"""What the page says of each stage, good or bad."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import polars as pl
import pytest

from saerl_assets.report import verdicts
from saerl_assets.report.inputs import ReportInputs
from saerl_assets.report.verdicts import Verdict
from saerl_assets_tests.report.frames import empty_frames, report_inputs, the_frames

Judge = Callable[[ReportInputs], Verdict]

JUDGES = (
    verdicts.judge_data,
    verdicts.judge_labels,
    verdicts.judge_sae,
    verdicts.judge_clusters,
    verdicts.judge_difficulty,
    verdicts.judge_quality,
    verdicts.judge_batches,
    verdicts.judge_exports,
    verdicts.judge_artifacts,
    verdicts.judge_feedback,
)


@pytest.fixture(scope="module")
def full() -> ReportInputs:
    return report_inputs(the_frames(400))


@pytest.fixture(scope="module")
def bare() -> ReportInputs:
    return report_inputs(empty_frames() | {"versions": the_frames(20)["versions"]})


@pytest.mark.parametrize("judge", JUDGES)
def test_a_sound_version_is_called_good(judge: Judge, full: ReportInputs) -> None:
    assert judge(full).level == "good"


@pytest.mark.parametrize("judge", JUDGES)
def test_a_stage_that_has_not_run_is_called_missing(judge: Judge, bare: ReportInputs) -> None:
    verdict = judge(bare)
    assert verdict.level == "missing"
    assert verdict.text.endswith(".")


def test_rows_are_accounted_for(full: ReportInputs) -> None:
    said = verdicts.judge_data(full).text
    assert said.startswith("413 rows became 400 prompts: 10 duplicates folded in, 3 rows rejected (0.7%)")
    assert "set apart for evaluation" in said


def test_the_proxy_is_compared_with_length(full: ReportInputs) -> None:
    assert verdicts.judge_difficulty(full).text == (
        "The proxy ranks held-out prompts at Spearman 0.83; prompt length alone reaches 0.41. In use: proxy."
    )
    better = pl.when(pl.col("score_name") == "length").then(0.8).otherwise("spearman").alias("spearman")
    for changed in ([better, pl.lit(None).alias("over_length_low")], [pl.lit(-0.01).alias("over_length_low")]):
        beaten = dataclasses.replace(full, difficulty_proxy=full.difficulty_proxy.with_columns(changed))
        verdict = verdicts.judge_difficulty(beaten)
        assert verdict.level == "watch"
        assert "not shown to beat sorting by length" in verdict.text


def test_a_proxy_that_was_not_learned_is_explained(full: ReportInputs) -> None:
    skipped = full.difficulty_proxy.with_columns(
        spearman=pl.lit(None, pl.Float64),
        explanation=pl.lit("Only 12 labels; add more under [labels.difficulty]."),
    )
    verdict = verdicts.judge_difficulty(dataclasses.replace(full, difficulty_proxy=skipped))
    assert verdict.level == "missing"
    assert "add more under" in verdict.text


def test_a_weak_probe_filters_nothing(full: ReportInputs) -> None:
    weak = dataclasses.replace(full, quality_probe=full.quality_probe.with_columns(auroc=pl.lit(0.52)))
    verdict = verdicts.judge_quality(weak)
    assert verdict.level == "watch"
    assert "nothing is filtered" in verdict.text


def test_an_unfit_sae_is_bad(full: ReportInputs) -> None:
    unfit = dataclasses.replace(full, sae_health=full.sae_health.with_columns(verdict=pl.lit("unfit")))
    assert verdicts.judge_sae(unfit).level == "bad"


def test_one_large_cluster_is_worth_a_look(full: ReportInputs) -> None:
    lopsided = full.clusters.with_columns(prompt_fraction=pl.lit(0.9))
    assert verdicts.judge_clusters(dataclasses.replace(full, clusters=lopsided)).level == "watch"


def test_a_curriculum_that_falls_is_worth_a_look(full: ReportInputs) -> None:
    falling = full.batch_manifest.with_columns(difficulty=-pl.col("difficulty"))
    verdict = verdicts.judge_batches(dataclasses.replace(full, batch_manifest=falling))
    assert verdict.level == "watch"
    assert "does not rise" in verdict.text


def test_what_is_left_out_is_counted(full: ReportInputs) -> None:
    said = verdicts.judge_batches(full).text
    left = full.deferred_prompts.filter((pl.col("arm") == "clustered") & (pl.col("reason_code") == "filtered")).height
    assert f"{left} filtered for quality" in said


def test_orders_that_differ_and_damaged_files_are_bad(full: ReportInputs) -> None:
    differing = full.trainer_exports.with_columns(order_digest=pl.col("digest"))
    assert verdicts.judge_exports(dataclasses.replace(full, trainer_exports=differing)).level == "bad"
    damaged = full.artifacts.with_columns(intact=pl.col("kind") != "sae")
    verdict = verdicts.judge_artifacts(dataclasses.replace(full, artifacts=damaged))
    assert verdict.level == "bad"
    assert "sae layer-15" in verdict.text


def test_the_worst_level_comes_first() -> None:
    assert verdicts.worst(["good", "missing", "watch"]) == "watch"
    assert verdicts.worst([]) == "missing"


def test_each_label_has_a_verdict_of_its_own_on_the_signals(full: ReportInputs) -> None:
    found = verdicts.judge_evidence(full)
    assert [verdict.level for verdict in found] == ["watch", "good"]
    assert [verdict.text.partition(":")[0] for verdict in found] == ["correct", "difficulty"]
    without = dataclasses.replace(full, evidence_verdicts=full.evidence_verdicts.clear())
    assert [verdict.level for verdict in verdicts.judge_evidence(without)] == ["missing"]


def test_a_reward_that_rises_with_difficulty_is_worth_a_look(full: ReportInputs) -> None:
    said = verdicts.judge_feedback(full)
    assert said.text.startswith("warmup <b>1</b>: Spearman -0.")
    turned = full.training_feedback.with_columns(reward=1.0 - pl.col("reward"))
    other = verdicts.judge_feedback(dataclasses.replace(full, training_feedback=turned))
    assert other.level == "watch"
    assert "Harder prompts were expected to have less of it" in other.text
    losses = turned.with_columns(loss="reward", reward=pl.lit(None, pl.Float64))
    assert verdicts.judge_feedback(dataclasses.replace(full, training_feedback=losses)).level == "good"


@pytest.mark.parametrize("n_prompts", [0, 2])
def test_a_log_that_cannot_be_held_against_difficulty_is_said_so(n_prompts: int, full: ReportInputs) -> None:
    few = full.training_feedback.head(max(n_prompts, 1))
    few = few if n_prompts else few.with_columns(reward=pl.lit(None, pl.Float64))
    said = verdicts.judge_feedback(dataclasses.replace(full, training_feedback=few))
    assert said.level == "watch"
    assert ("too few prompts" if n_prompts else "holds no reward") in said.text


def test_a_version_beyond_a_limit_of_its_line_is_worth_a_look(full: ReportInputs) -> None:
    said = verdicts.judge_lineage(full)
    assert said.level == "watch"
    assert said.text == "It continues demo-v0, 1 version back to its first. Beyond its limit: population shift."
    within = full.version_measures.with_columns(share_of_threshold=0.5)
    assert verdicts.judge_lineage(dataclasses.replace(full, version_measures=within)).level == "good"
    first = full.version_measures.filter(pl.col("dataset_version") == "demo-v1")
    assert verdicts.judge_lineage(dataclasses.replace(full, version_measures=first)).text == "The first of its line."
