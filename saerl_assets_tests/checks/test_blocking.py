"""Which checks stop what is downstream, and why: the rule, and the table of all checks.

A check blocks where going on would build something wrong on what it found, or lose data, without anybody seeing it. It
warns where the result is right but worth less than hoped: a person decides, and the report says so.
"""

from __future__ import annotations

import dagster as dg
import pytest

from saerl_assets.definitions import build_definitions

BLOCKING = {
    "prompts.no_row_lost": "rows of the source would be missing from everything",
    "rollouts.every_rollout_is_whole": "pass rates would be means over answers that are lost or doubled",
    "preference_pairs.every_prompt_has_its_pairs": "a DPO export would pair prompts with nothing",
    "sae_health.sae_fits": "features of an SAE that belongs to another model or layer mean nothing",
    "prompt_features.every_prompt_was_read": "prompts without features would count as easy and alike",
    "cluster_assignments.every_prompt_in_one_cluster": "prompts without a cluster would drop out of every batch",
    "difficulty_scores.every_prompt_scored": "prompts without a score have no place in an order",
    "quality_scores.filter_within_limits": "a filter that drops too much would train on what is left",
    "near_duplicates.every_group_has_one_representative": "folding would defer prompts with all of their copies",
    "batch_manifest.manifest_invariants": "a training would see prompts twice, or never",
    "batch_manifest.rows_have_their_digest": "an order that somebody edited would be exported under its old name",
    "deferred_prompts.what_hygiene_defers_has_its_evidence": "prompts would be left out without a reason",
    "trainer_exports.exports_keep_the_order": "a trainer would follow another order than the manifest's",
}
WARNING = {
    "prompts.both_splits_as_asked": "the order is right without an evaluation split; figures on it are missing",
    "outcomes.outcomes_tell_prompts_apart": "the labels are right, and say little; what learns from them is measured",
    "outcomes.few_answers_are_cut_off": "a cut answer counts as the verifier has it; a larger limit is a new version's",
    "feature_density.few_dead_latents": "the living latents are as good as ever",
    "clusters.no_cluster_takes_all": "batches are less diverse than they could be, and still right",
    "cluster_quality.clusters_hold_together": "as above",
    "cluster_map.map_shows_the_clusters": "it is looked at; nothing is built on it but the report",
    "feature_examples.examples_are_tokens_of_their_prompts": "as above",
    "version_drift.near_the_parent": "new data may well differ; a sensor or a person acts on it",
    "difficulty_scores.range_is_of_a_score_that_was_asked_for": "the summed activation is what `auto` falls back to",
    "difficulty_proxy.proxy_beats_length": "sorting by it is no worse than by length",
    "quality_probe.probe_beats_chance": "such a probe filters nothing",
    "quality_probe.probe_does_not_overfit": "its held-out figure is the one that counts",
    "quality_probe.probe_is_fresh": "it is right for the labels that it knew",
    "probe_calibration.probabilities_hold": "its ranking is right where its probabilities are not",
    "quality_scores.newer_labels_agree": "it is right for the prompts of its time",
    "near_duplicates.groups_are_no_template": "nothing is folded unless the spec says so",
    "contamination.little_is_contaminated": "what is contaminated is deferred as the spec says",
    "feedback_files.rows_match_prompts": "rows that match nothing are set aside, and the others are right",
    "trial_summary.every_arm_has_the_seeds_of_shuffle": "the figures are right for the seeds that there are",
    "trial_summary.the_policy_learns": "nothing is built on a trial; it says that it can tell nothing",
    "artifacts.all_intact": "it is last in the graph: nothing is downstream but the report, which shows it",
}


@pytest.fixture(scope="module")
def checks() -> dict[str, dg.AssetCheckSpec]:
    found = build_definitions().asset_checks or ()
    return {f"{spec.asset_key.path[-1]}.{spec.name}": spec for check in found for spec in check.check_specs}


def test_every_check_is_in_the_table(checks: dict[str, dg.AssetCheckSpec]) -> None:
    assert not BLOCKING.keys() & WARNING.keys()
    assert set(checks) == BLOCKING.keys() | WARNING.keys(), "say whether it blocks, and why"


def test_checks_block_where_going_on_would_be_wrong(checks: dict[str, dg.AssetCheckSpec]) -> None:
    assert {name for name, spec in checks.items() if spec.blocking} == set(BLOCKING)


def test_what_is_planned_and_exported_has_blocking_checks_before_it() -> None:
    graph = build_definitions().resolve_asset_graph()
    for asset in ("batch_manifest", "trainer_exports"):
        upstream = dg.AssetSelection.assets(asset).upstream(include_self=False).resolve(graph)
        held = {check.asset_key for check in graph.asset_check_keys if graph.get_check_spec(check).blocking}
        needed = {
            "prompts",
            "sae_health",
            "prompt_features",
            "cluster_assignments",
            "difficulty_scores",
            "quality_scores",
        }
        assert {dg.AssetKey(name) for name in needed} <= held & upstream, asset
