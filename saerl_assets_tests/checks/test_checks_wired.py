"""Every check is tested, and every check as Dagster runs it fails on a warehouse that was damaged."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from saerl_assets.automation.jobs import load_job
from saerl_assets.automation.runs import open_instance
from saerl_assets.resources.home import HomeResource
from saerl_assets_tests.checks import (
    test_artifacts_checks,
    test_batches_checks,
    test_cluster_map_checks,
    test_clusters_checks,
    test_difficulty_checks,
    test_drift_checks,
    test_feature_examples_checks,
    test_features_checks,
    test_feedback_checks,
    test_hygiene_checks,
    test_outcomes_checks,
    test_preference_pairs_checks,
    test_prompts_checks,
    test_quality_checks,
    test_sae_checks,
)
from saerl_assets_tests.tiny import KEY

MODULES = (
    test_feedback_checks,
    test_artifacts_checks,
    test_batches_checks,
    test_cluster_map_checks,
    test_clusters_checks,
    test_difficulty_checks,
    test_drift_checks,
    test_feature_examples_checks,
    test_features_checks,
    test_hygiene_checks,
    test_outcomes_checks,
    test_preference_pairs_checks,
    test_prompts_checks,
    test_quality_checks,
    test_sae_checks,
)
NEEDS_FILES = "trainer_exports.exports_keep_the_order"
"""Tested below on real exports alone."""

DAMAGE = {
    "prompts.no_row_lost": "DELETE FROM rejected_rows WHERE reason_code = 'too_long'",
    "preference_pairs.every_prompt_has_its_pairs": (
        "INSERT INTO preference_pairs VALUES ('tiny-v1', 'x', 0, '[]', '[1]', false, 0)"
    ),
    "prompts.both_splits_as_asked": "UPDATE prompts SET split = 'train'",
    "sae_health.sae_fits": "UPDATE sae_health SET verdict = 'unfit'",
    "feature_density.few_dead_latents": "UPDATE feature_density SET n_prompts = 0",
    "prompt_features.every_prompt_was_read": "DELETE FROM prompt_features WHERE len(feature_ids) > 0",
    "cluster_assignments.every_prompt_in_one_cluster": "DELETE FROM cluster_assignments WHERE cluster_id = 0",
    "cluster_quality.clusters_hold_together": "UPDATE cluster_quality SET verdict = 'watch'",
    "cluster_map.map_shows_the_clusters": "UPDATE cluster_map SET x = x + 1",
    "feature_examples.examples_are_tokens_of_their_prompts": "UPDATE feature_examples SET token_index = 100000",
    "version_drift.near_the_parent": "UPDATE version_drift SET verdict = 'drifted'",
    "clusters.no_cluster_takes_all": "UPDATE clusters SET prompt_fraction = 0.9",
    "difficulty_scores.every_prompt_scored": "UPDATE difficulty_scores SET difficulty_rank = 1 - difficulty_rank",
    "difficulty_scores.range_is_of_a_score_that_was_asked_for": (
        "UPDATE difficulty_scores SET score_name = 'magnitude'; "
        "UPDATE versions SET spec = replace(spec, '\"max_rank\":1.0', '\"max_rank\":0.5'); "
        "UPDATE versions SET spec_digest = sha256(spec)"
    ),
    "difficulty_proxy.proxy_beats_length": (
        "UPDATE difficulty_proxy SET over_length = -0.1, over_length_low = -0.2 WHERE score_name = 'proxy'"
    ),
    "quality_probe.probe_beats_chance": "UPDATE quality_probe SET auroc = 0.4, auroc_low = 0.9",
    "quality_probe.probe_does_not_overfit": "UPDATE quality_probe SET auroc = 1 WHERE rows = 'fitted'",
    "quality_probe.probe_is_fresh": "UPDATE quality_probe SET n_observations = 0",
    "probe_calibration.probabilities_hold": "UPDATE probe_calibration SET observed = predicted + 0.5",
    "quality_scores.newer_labels_agree": (
        "UPDATE quality_scores SET quality = 1 - observed.value FROM label_observations observed "
        "WHERE observed.label = 'correct' AND observed.prompt_id = quality_scores.prompt_id"
    ),
    "quality_scores.filter_within_limits": "UPDATE quality_scores SET kept = false",
    "near_duplicates.every_group_has_one_representative": (
        "INSERT INTO near_duplicates VALUES ('tiny-v1', 'x', 0, 2, 'x', 'copy', 'x', 1, 1, 'text')"
    ),
    "near_duplicates.groups_are_no_template": "UPDATE near_duplicates SET n_prompts = 1000",
    "contamination.little_is_contaminated": (
        "INSERT INTO contamination SELECT dataset_version, prompt_id, 'bench', 'bench:1', 'ngrams', 13, 1, 'a', 'b' "
        "FROM prompts"
    ),
    "deferred_prompts.what_hygiene_defers_has_its_evidence": (
        "UPDATE deferred_prompts SET reason_code = 'near_duplicate'"
    ),
    "rollouts.every_rollout_is_whole": (
        "INSERT INTO rollouts VALUES "
        "('tiny-v1', 'x', 0, 'r', 'yes', 1, 3, false, 's', 'p', 'exact', 'transformers', TIMESTAMP '2026-01-01')"
    ),
    "outcomes.outcomes_tell_prompts_apart": (
        "INSERT INTO outcomes VALUES ('tiny-v1', 'x', 0, 'train', 0, 8, 8, 3, 'p', 'exact')"
    ),
    "outcomes.few_answers_are_cut_off": "UPDATE outcomes SET n_truncated = n_rollouts",
    "batch_manifest.manifest_invariants": "DELETE FROM batch_manifest WHERE step = 0 AND slot = 0",
    "batch_manifest.rows_have_their_digest": "UPDATE batch_manifest SET difficulty = difficulty + 1 WHERE slot = 1",
    "feedback_files.rows_match_prompts": (
        "INSERT INTO feedback_files VALUES "
        "('tiny-v1', 'd', 'log.jsonl', 'trl', 10, 0, 9, 1, 1, 'x', TIMESTAMP '2026-01-01')"
    ),
    "trainer_exports.exports_keep_the_order": "UPDATE trainer_exports SET path = 'exports/elsewhere'",
    "artifacts.all_intact": "UPDATE artifacts SET intact = false",
}


def names(keys: set[dg.AssetCheckKey]) -> set[str]:
    return {f"{key.asset_key.to_user_string()}.{key.name}" for key in keys}


@pytest.fixture
def damaged(copied_home: HomeResource, monkeypatch: pytest.MonkeyPatch) -> HomeResource:
    """A copy of the built home, in which the job that is loaded by name works."""
    monkeypatch.setenv("SAERL_HOME", copied_home.root)
    return copied_home


def passes(home: HomeResource, check: dg.AssetCheckKey) -> bool:
    """Runs one check of the tiny version as Dagster does, and nothing else."""
    job = load_job().get_subset(asset_selection=set(), asset_check_selection={check})
    with open_instance(home.open().dagster) as instance:
        done = job.execute_in_process(
            instance=instance, partition_key=KEY, raise_on_error=False, run_config={"loggers": {"console": {}}}
        )
        (found,) = done.get_asset_check_evaluations()
        return found.passed


def test_every_check_is_proven_to_pass_and_to_fail() -> None:
    defined = names(set(load_job().asset_layer.asset_graph.asset_check_keys))
    assert defined == set(DAMAGE)
    cases = [case for module in MODULES for case in module.CASES]
    assert {case.check for case in cases if case.passes} == defined - {NEEDS_FILES}
    assert {case.check for case in cases if not case.passes} == defined - {NEEDS_FILES}


def test_every_check_fails_on_a_damaged_warehouse(damaged: HomeResource) -> None:
    with damaged.warehouse().writing("damage") as connection:
        for statement in DAMAGE.values():
            connection.execute(statement)
    checks = load_job().asset_layer.asset_graph.asset_check_keys
    assert names({check for check in checks if passes(damaged, check)}) == set()


def test_an_export_whose_file_was_changed_is_found(damaged: HomeResource) -> None:
    check = dg.AssetCheckKey(dg.AssetKey("trainer_exports"), "exports_keep_the_order")
    assert passes(damaged, check)
    path = damaged.warehouse().rows("trainer_exports", ["path"])["path"][0]
    file = damaged.open().root / Path(path) / "train.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert not passes(damaged, check)
