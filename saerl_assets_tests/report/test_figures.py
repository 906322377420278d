"""Every figure: a PNG of the house's size whatever the frames hold, and the same one in any order of rows."""

from __future__ import annotations

import struct
from collections.abc import Callable

import polars as pl
import pytest

from saerl_assets.report.batch_metrics import figure_batch_clusters, figure_batch_metrics
from saerl_assets.report.batches import figure_batch_manifest, figure_deferred_prompts, figure_manifests
from saerl_assets.report.cluster_map import figure_cluster_map
from saerl_assets.report.clusters import figure_cluster_assignments, figure_cluster_quality, figure_clusters
from saerl_assets.report.control_signals import figure_control_signals
from saerl_assets.report.difficulty import figure_difficulty_proxy, figure_difficulty_scores
from saerl_assets.report.drift import figure_cluster_drift, figure_version_drift
from saerl_assets.report.evidence import (
    figure_evidence_curve,
    figure_evidence_verdicts,
    figure_sentence_embeddings,
    figure_signal_evidence,
)
from saerl_assets.report.exports import figure_artifacts, figure_trainer_exports
from saerl_assets.report.feature_examples import figure_feature_examples
from saerl_assets.report.features import figure_feature_density, figure_prompt_features, figure_prompt_states
from saerl_assets.report.outcomes import figure_outcomes, figure_rollouts
from saerl_assets.report.preference_pairs import figure_preference_pairs
from saerl_assets.report.prompts import (
    figure_label_observations,
    figure_labels,
    figure_prompts,
    figure_rejected_rows,
)
from saerl_assets.report.quality import figure_probe_calibration, figure_quality_probe, figure_quality_scores
from saerl_assets.report.sae import figure_control_saes, figure_layer_profile, figure_sae_health, figure_sae_weights
from saerl_assets.report.versions import figure_version_report, figure_versions
from saerl_assets_tests.report.frames import a_history, a_spec, active_counts, empty_frames, the_frames, trained

Frames = dict[str, pl.DataFrame]

FIGURES: dict[str, Callable[[Frames], bytes]] = {
    "prompts": lambda of: figure_prompts(of["prompts"]),
    "preference_pairs": lambda of: figure_preference_pairs(of["preference_pairs"]),
    "rejected_rows": lambda of: figure_rejected_rows(of["rejected_rows"], n_rows=500),
    "label_observations": lambda of: figure_label_observations(of["label_observations"]),
    "labels": lambda of: figure_labels(of["labels"]),
    "sae_weights": lambda of: figure_sae_weights(of["sae_weights"]),
    "sae_health": lambda of: figure_sae_health(of["sae_health"], min_explained_variance=0.5, max_dead_fraction=0.5),
    "layer_profile": lambda of: figure_layer_profile(of["sae_health"]),
    "control_saes": lambda of: figure_control_saes(of["control_saes"]),
    "signal_evidence": lambda of: figure_signal_evidence(of["signal_evidence"]),
    "evidence_curve": lambda of: figure_evidence_curve(of["evidence_curve"]),
    "evidence_verdicts": lambda of: figure_evidence_verdicts(of["evidence_verdicts"]),
    "sentence_embeddings": lambda of: figure_sentence_embeddings(
        0,
        of["sentence_embeddings"].height,
        "an encoder" if of["sentence_embeddings"].height else "No encoder is named.",
    ),
    "prompt_features": lambda of: figure_prompt_features(active_counts(of)),
    "prompt_states": lambda of: figure_prompt_states(of["prompt_states"], of["prompts"]),
    "feature_density": lambda of: figure_feature_density(of["feature_density"]),
    "clusters": lambda of: figure_clusters(of["clusters"]),
    "cluster_map": lambda of: figure_cluster_map(of["cluster_map"], 0.93),
    "feature_examples": lambda of: figure_feature_examples(of["feature_examples"]),
    "cluster_assignments": lambda of: figure_cluster_assignments(of["cluster_assignments"]),
    "cluster_quality": lambda of: figure_cluster_quality(of["cluster_quality"]),
    "cluster_drift": lambda of: figure_cluster_drift(of["cluster_drift"]),
    "version_drift": lambda of: figure_version_drift(of["version_drift"]),
    "difficulty_scores": lambda of: figure_difficulty_scores(
        of["difficulty_scores"], of["prompts"], of["labels"], label_name="difficulty"
    ),
    "difficulty_by_many_values": lambda of: figure_difficulty_scores(
        of["difficulty_scores"],
        of["prompts"],
        of["labels"].with_columns(value=pl.col("value") + pl.col("prompt_id").rank() / 1000),
        label_name="difficulty",
    ),
    "difficulty_by_topic": lambda of: figure_difficulty_scores(
        of["difficulty_scores"], of["prompts"], of["labels"], label_name="unknown"
    ),
    "difficulty_proxy": lambda of: figure_difficulty_proxy(of["difficulty_proxy"]),
    "control_signals": lambda of: figure_control_signals(
        of["control_signals"], of["cluster_assignments"], of["difficulty_scores"]
    ),
    "rollouts": lambda of: figure_rollouts(of["rollouts"]),
    "outcomes": lambda of: figure_outcomes(of["outcomes"]),
    "quality_probe": lambda of: figure_quality_probe(of["quality_probe"], min_auroc=0.55),
    "probe_calibration": lambda of: figure_probe_calibration(of["probe_calibration"]),
    "quality_scores": lambda of: figure_quality_scores(of["quality_scores"]),
    "batch_manifest": lambda of: figure_batch_manifest(of["batch_manifest"], "clustered"),
    "batch_metrics": lambda of: figure_batch_metrics(of["batch_metrics"], "clustered"),
    "batch_clusters": lambda of: figure_batch_clusters(of["batch_manifest"], "clustered"),
    "deferred_prompts": lambda of: figure_deferred_prompts(of["deferred_prompts"], "clustered"),
    "manifests": lambda of: figure_manifests(of["manifests"]),
    "trainer_exports": lambda of: figure_trainer_exports(of["trainer_exports"]),
    "artifacts": lambda of: figure_artifacts(of["artifacts"]),
}

NULLABLE = {
    "prompts": ["topic"],
    "clusters": ["top_topic", "top_topic_fraction", "parent_digest"],
    "cluster_quality": ["value"],
    "cluster_drift": ["centroid_shift"],
    "version_drift": ["value"],
    "control_signals": ["dense_cluster_id", "dense_difficulty", "true_difficulty"],
    "difficulty_scores": ["proxy"],
    "difficulty_proxy": ["spearman", "low", "high", "r2", "over_length", "over_length_low", "over_length_high"],
    "signal_evidence": ["value", "low", "high", "given_length", "behind_best", "behind_best_margin"],
    "quality_probe": ["auroc", "auroc_low", "auroc_high", "brier", "base_rate", "penalty", "digest", "path"],
    "quality_scores": ["quality"],
    "batch_metrics": ["feature_overlap", "mean_quality"],
}


@pytest.fixture(scope="module")
def frames() -> Frames:
    return the_frames(160, n_clusters=20)


@pytest.fixture(scope="module")
def drawn(frames: Frames) -> dict[str, bytes]:
    """Every figure of the full version."""
    return {name: draw(frames) for name, draw in FIGURES.items()}


def header(png: bytes) -> tuple[int, int]:
    """Checks that the bytes are a PNG without texts or times in it; returns its width and height."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    position, kinds = 8, []
    while position < len(png):
        length, kind = struct.unpack(">I4s", png[position : position + 8])
        kinds.append(kind)
        position += 12 + length
    assert set(kinds) <= {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"pHYs"}
    width, height = struct.unpack(">II", png[16:24])
    return int(width), int(height)


def check(png: bytes) -> None:
    width, height = header(png)
    assert width == 800
    assert 80 <= height <= 620
    assert len(png) < 60_000


@pytest.mark.parametrize("name", FIGURES)
def test_a_full_version_is_drawn_the_same_from_rows_in_any_order(
    name: str, frames: Frames, drawn: dict[str, bytes]
) -> None:
    check(drawn[name])
    shuffled = {table: rows.sample(fraction=1.0, shuffle=True, seed=3) for table, rows in frames.items()}
    assert FIGURES[name](shuffled) == drawn[name]


@pytest.mark.parametrize("name", FIGURES)
def test_without_rows_the_figure_says_so_in_words(name: str, drawn: dict[str, bytes]) -> None:
    said = FIGURES[name](empty_frames())
    check(said)
    assert header(said)[1] < 200, "a message is a short card"
    assert said != drawn[name]


@pytest.mark.parametrize("name", FIGURES)
def test_one_prompt_in_one_cluster_is_drawn(name: str) -> None:
    one = the_frames(20, n_clusters=1)  # the smallest that has a batch
    first = sorted(one["prompts"]["prompt_id"])[0]
    kept = {
        table: rows.filter(pl.col("prompt_id") == first) if "prompt_id" in rows.columns else rows.head(1)
        for table, rows in one.items()
    }
    check(FIGURES[name](kept))


@pytest.mark.parametrize("name", [name for name in FIGURES if name in NULLABLE])
def test_what_may_be_null_is_null(name: str, frames: Frames) -> None:
    nulls = {
        table: rows.with_columns(
            pl.lit(None).cast(rows.schema[column]).alias(column) for column in NULLABLE.get(table, [])
        )
        for table, rows in frames.items()
    }
    check(FIGURES[name](nulls))


@pytest.mark.parametrize(
    "name",
    [
        "prompts",
        "labels",
        "quality_scores",
        "rollouts",
        "outcomes",
        "cluster_assignments",
        "cluster_quality",
        "cluster_drift",
        "version_drift",
        "difficulty_scores",
    ],
)
def test_values_that_are_all_the_same_or_not_finite_are_drawn(name: str, frames: Frames) -> None:
    constant = {
        table: rows.with_columns(
            pl.lit(3).cast(dtype).alias(column)
            for column, dtype in rows.schema.items()
            if dtype.is_numeric() and column not in {"position", "cluster_id", "feature_id"}
        )
        for table, rows in frames.items()
    }
    check(FIGURES[name](constant))
    infinite = {
        table: rows.with_columns(
            pl.when(pl.int_range(pl.len()) == 1).then(float("inf")).otherwise(column).alias(column)
            for column, dtype in rows.schema.items()
            if dtype.is_float()
        )
        for table, rows in frames.items()
    }
    check(FIGURES[name](infinite))


def test_training_curves_of_one_layer_and_of_several_are_drawn(frames: Frames) -> None:
    one = figure_sae_weights(trained({15: a_history()}))
    check(one)
    check(figure_sae_weights(trained({7: a_history(), 15: a_history(worse=1), 22: a_history(worse=2)})))
    check(figure_sae_weights(trained({15: a_history(1)})))
    lossless = [row | {"loss": None} for row in a_history(5)]
    check(figure_sae_weights(trained({15: lossless})))  # type: ignore[dict-item]
    loaded = figure_sae_weights(frames["sae_weights"].with_columns(training=pl.lit("{}")))
    check(loaded)
    assert loaded != one


def test_several_layers_share_the_figures_of_health_and_density(frames: Frames) -> None:
    layers = pl.DataFrame({"layer": [7, 22]}, schema={"layer": pl.UInt32})
    health = frames["sae_health"].drop("layer").join(layers, how="cross")
    poor = health.with_columns(explained_variance=pl.lit(-0.4), dead_fraction=pl.lit(0.97), verdict=pl.lit("unfit"))
    check(figure_sae_health(poor, min_explained_variance=0.5, max_dead_fraction=0.5))
    check(figure_layer_profile(poor))
    unmeasured = poor.with_columns(layer_profile=pl.lit([], pl.List(pl.Float64)))
    check(figure_layer_profile(unmeasured))
    check(figure_feature_density(frames["feature_density"].drop("layer").join(layers, how="cross")))
    dead = frames["feature_density"].with_columns(pl.lit(0, pl.UInt64).alias("n_prompts"))
    check(figure_feature_density(dead))


def test_a_probe_worse_than_chance_is_drawn(frames: Frames) -> None:
    worse = frames["quality_probe"].with_columns(auroc=pl.lit(0.31))
    check(figure_quality_probe(worse, min_auroc=0.55))
    nothing_held_out = worse.filter(pl.col("rows") == "fitted")
    check(figure_quality_probe(nothing_held_out, min_auroc=0.9))


def test_a_damaged_artefact_changes_the_figure(frames: Frames) -> None:
    damaged = frames["artifacts"].with_columns(intact=pl.col("kind") != "sae")
    assert figure_artifacts(damaged) != figure_artifacts(frames["artifacts"])


def test_orders_that_differ_between_trainers_are_called_out(frames: Frames) -> None:
    differing = frames["trainer_exports"].with_columns(order_digest=pl.col("digest"))
    assert figure_trainer_exports(differing) != figure_trainer_exports(frames["trainer_exports"])


def test_the_choices_of_a_spec_and_the_stages_are_drawn() -> None:
    spec = a_spec()
    check(figure_versions(spec))
    check(figure_versions(spec.model_copy(update={"description": "", "parent": "demo-v0"})))
    check(figure_version_report(pl.DataFrame({"stage": ["rows", "prompts"], "n_rows": [10, 7]})))
    check(figure_version_report(pl.DataFrame({"stage": ["rows"], "n_rows": [0]})))


def test_epochs_and_a_planner_without_a_control_are_drawn(frames: Frames) -> None:
    manifest = frames["batch_manifest"]
    twice = pl.concat([manifest, manifest.with_columns(epoch=pl.col("epoch") + 1)])
    check(figure_batch_manifest(twice, "clustered"))
    check(figure_batch_manifest(manifest.filter(pl.col("arm") == "balanced"), "balanced"))
    check(figure_batch_clusters(twice, "clustered"))
    check(figure_batch_clusters(manifest.filter(pl.col("arm") == "balanced"), "balanced"))
    metrics = frames["batch_metrics"]
    check(figure_batch_metrics(metrics, "unknown"))
    check(figure_batch_metrics(metrics.filter(pl.col("arm") == "clustered"), "clustered"))
    check(figure_batch_metrics(pl.concat([metrics, metrics.with_columns(epoch=pl.col("epoch") + 1)]), "clustered"))


def test_every_measure_of_a_batch_is_in_its_chart(frames: Frames) -> None:
    metrics = frames["batch_metrics"]
    whole = figure_batch_metrics(metrics, "clustered")
    for measure in ("cluster_entropy", "n_clusters", "feature_overlap", "difficulty_p10", "mean_quality"):
        turned = metrics.with_columns(pl.col(measure) * (1 + pl.col("step") % 3))
        assert figure_batch_metrics(turned, "clustered") != whole, measure


def test_the_heat_map_shows_which_cluster_a_batch_draws_from(frames: Frames) -> None:
    manifest = frames["batch_manifest"]
    moved = manifest.with_columns(
        cluster_id=pl.when((pl.col("arm") == "clustered") & (pl.col("step") == 1)).then(0).otherwise("cluster_id")
    )
    assert figure_batch_clusters(moved, "clustered") != figure_batch_clusters(manifest, "clustered")
