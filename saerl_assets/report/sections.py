"""The sections of the page: what each one shows, in which order.

Belongs here: putting verdicts, figures and tables together. Does not belong here: HTML.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from saerl_assets.domain.spec_text import spec_toml
from saerl_assets.report import lineage_tables, order_tables, score_tables, tables, verdicts
from saerl_assets.report.batch_metrics import figure_batch_clusters, figure_batch_metrics
from saerl_assets.report.batches import figure_batch_manifest, figure_deferred_prompts
from saerl_assets.report.blocks import Block, Code, FactList, picture
from saerl_assets.report.cluster_map import cluster_map_block
from saerl_assets.report.clusters import figure_cluster_assignments, figure_cluster_quality, figure_clusters
from saerl_assets.report.control_signals import figure_control_signals
from saerl_assets.report.difficulty import figure_difficulty_proxy, figure_difficulty_scores
from saerl_assets.report.drift import figure_cluster_drift, figure_version_drift
from saerl_assets.report.evidence import figure_evidence_curve, figure_signal_evidence
from saerl_assets.report.feature_examples import examples_table
from saerl_assets.report.features import figure_feature_density, figure_prompt_features
from saerl_assets.report.feedback import figure_curriculum_steps, figure_training_feedback
from saerl_assets.report.hygiene import (
    contamination_table,
    figure_contamination,
    figure_near_duplicates,
    near_duplicates_table,
)
from saerl_assets.report.outcomes import figure_outcomes, figure_rollouts
from saerl_assets.report.prompts import figure_labels, figure_prompts, figure_rejected_rows
from saerl_assets.report.quality import figure_probe_calibration, figure_quality_probe, figure_quality_scores
from saerl_assets.report.sae import figure_layer_profile, figure_sae_health, figure_sae_weights
from saerl_assets.report.training_trial import figure_trial_evaluations, figure_trial_summary, trial_table
from saerl_assets.report.verdicts import worst
from saerl_assets.report.versions import chosen, figure_version_report
from saerl_assets.report.words import count

if TYPE_CHECKING:
    from saerl_assets.report.inputs import ReportInputs
    from saerl_assets.report.verdicts import Level, Verdict


@dataclass(frozen=True)
class Section:
    """One section of the page."""

    id: str
    title: str
    verdicts: tuple[Verdict, ...]
    blocks: tuple[Block, ...]

    @property
    def level(self) -> Level:
        """How good its worst verdict is."""
        return worst(verdict.level for verdict in self.verdicts)


def all_sections(inputs: ReportInputs) -> tuple[Section, ...]:
    """Every section but the summary, which repeats their verdicts."""
    return (
        _data(inputs),
        _sae(inputs),
        _clusters(inputs),
        _evidence(inputs),
        _difficulty(inputs),
        _quality(inputs),
        _batches(inputs),
        _exports(inputs),
        _feedback(inputs),
        _lineage(inputs),
        _provenance(inputs),
    )


def summary_blocks(inputs: ReportInputs) -> tuple[Block, ...]:
    """What the page opens with, after the verdicts."""
    return (
        picture(figure_version_report(inputs.stages), "What became of the rows, from stage to stage"),
        FactList("What the spec chose", tuple(chosen(inputs.spec))),
    )


def _data(inputs: ReportInputs) -> Section:
    blocks: list[Block] = [picture(figure_prompts(inputs.prompts), "Histogram of the prompts' lengths in tokens")]
    if inputs.labels.height:
        blocks.append(picture(figure_labels(inputs.labels), "Histograms of the labels"))
    if inputs.outcomes.height:
        blocks += [
            picture(figure_outcomes(inputs.outcomes), "How often the policy answers each prompt right"),
            picture(figure_rollouts(inputs.rollouts), "How long the policy's answers are"),
        ]
    if inputs.rejected_rows.height:
        drawn = figure_rejected_rows(inputs.rejected_rows, n_rows=inputs.n_source_rows)
        blocks += [picture(drawn, "Rejected rows by reason"), tables.rejected_table(inputs)]
    if inputs.contamination.height:
        drawn = figure_contamination(inputs.contamination)
        blocks += [picture(drawn, "Prompts that repeat evaluation rows"), contamination_table(inputs.contamination)]
    if inputs.prompts.height:
        blocks.append(tables.prompts_table(inputs))
    return Section("data", "Data", (verdicts.judge_data(inputs), verdicts.judge_labels(inputs)), tuple(blocks))


def _sae(inputs: ReportInputs) -> Section:
    spec = inputs.spec.sae
    health = figure_sae_health(
        inputs.sae_health,
        min_explained_variance=spec.min_explained_variance,
        max_dead_fraction=spec.max_dead_fraction,
    )
    counts = inputs.prompts.select("prompt_id", "n_tokens").join(
        inputs.difficulty_scores.select("prompt_id", "n_active_features"), on="prompt_id"
    )
    blocks: list[Block] = [
        picture(health, "Explained variance and dead latents against the spec's limits"),
        picture(figure_layer_profile(inputs.sae_health), "Variance explained at every layer of the model"),
        picture(figure_sae_weights(inputs.sae_weights), "The SAE and its training"),
    ]
    if counts.height:
        blocks.append(picture(figure_prompt_features(counts), "Active features per prompt, and against length"))
    if inputs.feature_density.height:
        blocks.append(picture(figure_feature_density(inputs.feature_density), "Prompts in which a feature is active"))
        has_examples = inputs.feature_examples.height > 0
        blocks.append(examples_table(inputs) if has_examples else tables.features_table(inputs))
    return Section("sae", "SAE and features", (verdicts.judge_sae(inputs),), tuple(blocks))


def _clusters(inputs: ReportInputs) -> Section:
    blocks: list[Block] = []
    if inputs.clusters.height:
        blocks = [
            picture(figure_clusters(inputs.clusters), "Sizes of the clusters with the words that set them apart"),
            tables.clusters_table(inputs),
            picture(
                figure_cluster_assignments(inputs.cluster_assignments),
                "Similarity of prompts to their cluster",
            ),
        ]
        if inputs.cluster_map.height:
            blocks.insert(0, cluster_map_block(inputs))
    if inputs.cluster_quality.height:
        drawn = figure_cluster_quality(inputs.cluster_quality)
        blocks.append(picture(drawn, "How even, apart and stable the clusters are, against limits"))
    if inputs.cluster_drift.height:
        blocks += [
            picture(figure_version_drift(inputs.version_drift), "Drift from the parent against its limits"),
            picture(figure_cluster_drift(inputs.cluster_drift), "What has become of the parent's clusters"),
        ]
    if inputs.near_duplicates.height:
        drawn = figure_near_duplicates(inputs.near_duplicates, inputs.cluster_assignments)
        blocks += [
            picture(drawn, "Prompts that nearly repeat another one, by cluster and by how near they are"),
            near_duplicates_table(inputs.near_duplicates, inputs.prompts, inputs.cluster_assignments),
        ]
    said = (verdicts.judge_clusters(inputs), *verdicts.judge_drift(inputs))
    return Section("clusters", "Clusters", said, tuple(blocks))


def _evidence(inputs: ReportInputs) -> Section:
    blocks: list[Block] = []
    if inputs.signal_evidence.height:
        blocks = [
            picture(figure_signal_evidence(inputs.signal_evidence), "What each signal is worth, with intervals"),
            picture(figure_evidence_curve(inputs.evidence_curve), "What more labels add"),
            score_tables.evidence_table(inputs),
        ]
    return Section("evidence", "Evidence", verdicts.judge_evidence(inputs), tuple(blocks))


def _difficulty(inputs: ReportInputs) -> Section:
    blocks: list[Block] = []
    if inputs.difficulty_proxy.height:
        blocks += [
            picture(
                figure_difficulty_proxy(inputs.difficulty_proxy),
                "Rank correlation of each score with the label",
            ),
            score_tables.proxy_table(inputs),
        ]
    if inputs.difficulty_scores.height:
        drawn = figure_difficulty_scores(
            inputs.difficulty_scores, inputs.prompts, inputs.labels, label_name=inputs.spec.difficulty.label
        )
        blocks += [
            picture(drawn, "The difficulty in use, and against the label or by topic"),
            score_tables.extremes_table(inputs, hardest=False),
            score_tables.extremes_table(inputs, hardest=True),
        ]
    return Section("difficulty", "Difficulty", (verdicts.judge_difficulty(inputs),), tuple(blocks))


def _quality(inputs: ReportInputs) -> Section:
    blocks: list[Block] = []
    if inputs.quality_probe["auroc"].is_not_null().any():
        drawn = figure_quality_probe(inputs.quality_probe, min_auroc=inputs.spec.quality.min_auroc)
        blocks += [picture(drawn, "Accuracy of the quality probe"), score_tables.probe_table(inputs)]
    if inputs.probe_calibration.height:
        drawn = figure_probe_calibration(inputs.probe_calibration)
        blocks.append(picture(drawn, "Predicted shares of correct outcomes against observed ones"))
    if inputs.quality_scores["quality"].is_not_null().any():
        blocks.append(picture(figure_quality_scores(inputs.quality_scores), "Predicted quality with the cut"))
    if inputs.quality_scores.filter(~pl.col("kept")).height:
        blocks.append(score_tables.dropped_table(inputs))
    return Section("quality", "Quality", (verdicts.judge_quality(inputs),), tuple(blocks))


def _batches(inputs: ReportInputs) -> Section:
    blocks: list[Block] = []
    if inputs.ordered.height:
        manifest, planner = inputs.batch_manifest, inputs.planner
        blocks += [
            picture(figure_batch_manifest(manifest, planner), "Difficulty over the batches, beside a shuffle"),
            picture(figure_batch_metrics(inputs.batch_metrics, planner), "What batches are like, beside a shuffle"),
            picture(figure_batch_clusters(manifest, planner), "Clusters that batches draw from, beside a shuffle"),
            order_tables.batch_strip(inputs),
            order_tables.arms_table(inputs),
        ]
        if inputs.control_signals.height:
            drawn = figure_control_signals(inputs.control_signals, inputs.cluster_assignments, inputs.difficulty_scores)
            blocks.append(picture(drawn, "What control arms are planned on, by the version's own signals"))
        if inputs.deferred_prompts.filter(pl.col("arm") == planner).height:
            drawn = figure_deferred_prompts(inputs.deferred_prompts, planner)
            blocks.append(picture(drawn, "Prompts left out of the order, by reason"))
        blocks += [order_tables.batch_table(inputs, last=False), order_tables.batch_table(inputs, last=True)]
    return Section("batches", "Batches", (verdicts.judge_batches(inputs),), tuple(blocks))


def _exports(inputs: ReportInputs) -> Section:
    blocks: list[Block] = [order_tables.exports_table(inputs)] if inputs.trainer_exports.height else []
    trainers = inputs.trainer_exports["trainer"].unique().sort().to_list() or ["trl", "verl"]
    for row in inputs.trainer_settings.sort("trainer", "arm").iter_rows(named=True):
        said = f"{row['trainer']}: settings that keep the order, {row['file']}"
        blocks.append(
            Code(said if row["arm"] == inputs.planner else f"{said} ({row['arm']})", row["text"], is_open=False)
        )
    commands = [f"saerl export {inputs.spec.key} --to {name}" for name in trainers]
    commands += [f"saerl lint YOUR_CONFIG --trainer {name}" for name in trainers]
    commands.append(f"saerl verify YOUR_LOG --manifest {inputs.spec.key}")
    blocks.append(Code("Write them again, look for what would break the order, and prove it kept", "\n".join(commands)))
    return Section("exports", "Trainer files", (verdicts.judge_exports(inputs),), tuple(blocks))


def _feedback(inputs: ReportInputs) -> Section:
    blocks: list[Block] = []
    judged = [verdicts.judge_feedback(inputs)]
    if inputs.spec.trial is not None:
        judged.insert(0, verdicts.judge_trial(inputs))
        blocks += [
            picture(figure_trial_evaluations(inputs.trial_evaluations), "Accuracy over steps in each order"),
            picture(figure_trial_summary(inputs.trial_summary), "Steps to the target beside those of shuffle"),
        ]
        if inputs.trial_summary.height:
            blocks.append(trial_table(inputs.trial_summary))
    if inputs.training_feedback.height:
        pointed = lineage_tables.feedback_block(inputs)
        drawn = figure_training_feedback(inputs.training_feedback, inputs.difficulty_scores)
        blocks += [pointed] if pointed else []
        blocks += [picture(drawn, "Difficulty against what the latest training measured, and over its steps")]
        blocks.append(lineage_tables.feedback_table(inputs))
    else:
        added = f"saerl labels add {inputs.spec.key} path/to/saerl_log.jsonl"
        blocks.append(Code("Give it a training's log", added))
    if inputs.curriculum_steps.height:
        blocks.append(picture(figure_curriculum_steps(inputs.curriculum_steps), "What each epoch unlocked, and why"))
    return Section("feedback", "Training", tuple(judged), tuple(blocks))


def _lineage(inputs: ReportInputs) -> Section:
    blocks = [lineage_tables.lineage_table(inputs)] if inputs.version_measures.height else []
    return Section("lineage", "Over versions", (verdicts.judge_lineage(inputs),), tuple(blocks))


def _provenance(inputs: ReportInputs) -> Section:
    row = inputs.versions.row(0, named=True)
    blocks: list[Block] = [
        Code("Build this version again", _rebuilt(inputs)),
        FactList("Digests", tuple(_digests(inputs))),
    ]
    if inputs.artifacts.height:
        blocks.append(order_tables.artifacts_table(inputs))
    blocks += [
        Code(f"{inputs.spec.key}.toml: the spec, with every default", spec_toml(inputs.spec), is_open=False),
        Code("What its names stood for", _pretty(row["resolved"]), is_open=False),
    ]
    return Section("provenance", "Provenance", (verdicts.judge_artifacts(inputs),), tuple(blocks))


def _rebuilt(inputs: ReportInputs) -> str:
    """The commands that make the version here or elsewhere."""
    key = inputs.spec.key
    first = (
        f"saerl register {inputs.spec.parent}.toml && saerl run {inputs.spec.parent}\n" if inputs.spec.parent else ""
    )
    return (
        f"saerl run {key}    # here: what is missing or out of date\n\n"
        f"# elsewhere: save the spec below as {key}.toml where its paths lead to the data\n"
        f"{first}saerl register {key}.toml && saerl run {key}"
    )


def _digests(inputs: ReportInputs) -> list[tuple[str, str]]:
    """Every name by content that the page's figures depend on."""
    row = inputs.versions.row(0, named=True)
    found = [("spec", row["spec_digest"]), ("parent", row["parent"] or "none")]
    found += [
        (f"source of {name}", f"{source['digest']} ({source['location']})")
        for name, source in _sources(row["resolved"])
    ]
    found.append(("manifest", inputs.manifest_id or "none"))
    for sae in inputs.sae_weights.sort("layer").iter_rows(named=True):
        layer = f", layer {sae['layer']}"
        found += [
            ("reader", sae["reader_digest"]),
            (f"SAE{layer}", sae["digest"]),
            (f"encoder{layer}", sae["encoder_id"]),
            (f"reading{layer}", sae["reading_id"]),
        ]
    found += [("centroids", name) for name in inputs.clusters["centroids_digest"].unique().sort()]
    found += [("probe", name) for name in inputs.quality_probe["digest"].drop_nulls().unique().sort()]
    for export in inputs.trainer_exports.sort("trainer", "arm").iter_rows(named=True):
        found += [
            (f"order for {export['trainer']}", export["order_digest"]),
            (f"files for {export['trainer']}", export["digest"]),
        ]
    found.append(("written by", inputs.generated_with))
    return list(dict.fromkeys(found))


def _sources(resolved: str) -> list[tuple[str, dict[str, str]]]:
    """The sources that were read, with their digests, by what they are for."""
    try:
        found = json.loads(resolved).get("sources", {})
    except (ValueError, AttributeError):
        return []
    return [(name, source) for name, source in sorted(found.items()) if {"digest", "location"} <= set(source)]


def _pretty(document: str) -> str:
    """JSON laid out to be read; the text itself where it is none."""
    try:
        return json.dumps(json.loads(document), indent=2, ensure_ascii=False, sort_keys=True)
    except ValueError:
        return document


def headline(inputs: ReportInputs) -> list[tuple[str, str]]:
    """The few numbers under the title."""
    found = [
        ("prompts", count(inputs.prompts.height)),
        ("tokens", count(float(inputs.prompts["n_tokens"].sum()))),
    ]
    if inputs.sae_weights.height:
        found.append(("features", count(float(inputs.sae_weights["n_latents"].sum()))))
    if inputs.clusters.height:
        found.append(("clusters", count(inputs.clusters.height)))
    if inputs.ordered.height:
        found.append(("batches", count(inputs.ordered.select("epoch", "step").n_unique())))
    return found
