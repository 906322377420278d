"""One number a version: the names stay the same, and the numbers are those of the rows."""

from __future__ import annotations

import polars as pl
import pytest

from saerl_assets.automation.summary import RunSummary
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.series import SERIES, numbers_of
from saerl_assets.storage.schema import tables
from saerl_assets_tests.tiny import KEY

NAMES = {
    "prompts": {"n_training_prompts", "n_evaluation_prompts", "mean_tokens"},
    "labels": {"n_labelled_prompts", "conflicting_fraction"},
    "sae_health": {"explained_variance_layer1", "l0_layer1", "dead_fraction_layer1"},
    "feature_density": {"dead_fraction", "single_prompt_fraction", "median_prompts_per_feature"},
    "clusters": {"n_clusters", "largest_fraction", "median_cluster_size"},
    "cluster_assignments": {"mean_similarity"},
    "cluster_quality": {"stability", "silhouette", "balance", "largest_fraction", "tiny_fraction"},
    "difficulty_proxy": {
        *("spearman_proxy", "spearman_count", "spearman_magnitude", "spearman_length"),
        "proxy_over_length",
    },
    "difficulty_scores": {"active_features_p10", "active_features_p50", "active_features_p90", "mean_difficulty"},
    "quality_probe": {
        *("held_out_auroc", "held_out_auroc_low", "held_out_auroc_high", "held_out_brier", "held_out_base_rate"),
        *("held_out_calibration_error", "held_out_n_rows"),
    },
    "quality_scores": {"dropped_fraction", "mean_quality"},
    "batch_manifest": {"n_arms", "n_epochs", "n_steps", "n_prompts_in_order"},
    "artifacts": {"n_bytes", "n_broken"},
    "trainer_exports": {"n_exported_rows"},
    "version_report": {"n_bytes"},
}
"""Of the tiny version, which has no parent and no duplicates. A name that changes breaks somebody's time series."""


def test_what_a_build_records_is_what_its_rows_say(tiny_run: tuple[HomeResource, RunSummary]) -> None:
    home, summary = tiny_run
    recorded = {stage.asset: stage.metadata for stage in summary.state.stages}
    for table in SERIES:
        numbers = numbers_of(table, home.warehouse().rows(table, dataset_version=KEY))
        assert {name: recorded[table].get(name) for name in numbers} == numbers, table
        assert all(type(value) in {int, float} for value in numbers.values()), table
        assert NAMES.get(table, set()) <= set(numbers), table
    assert set(SERIES) <= set(tables())


@pytest.mark.parametrize("table", sorted(SERIES))
def test_a_table_without_rows_has_no_numbers(table: str) -> None:
    schema = {column.name: column.dtype for column in tables()[table].columns}
    assert numbers_of(table, pl.DataFrame(schema=schema)) == {}


def test_a_table_without_series_has_none() -> None:
    assert numbers_of("versions", pl.DataFrame({"dataset_version": ["a-v1"]})) == {}


def test_numbers_that_a_version_does_not_have_are_left_out() -> None:
    drift = pl.DataFrame({"measure": ["moved_fraction", "density_shift"], "value": [0.25, None]})
    assert numbers_of("version_drift", drift) == {"moved_fraction": 0.25}
    scores = pl.DataFrame({"kept": [True, True, False, True], "quality": pl.Series([None] * 4, dtype=pl.Float64)})
    assert numbers_of("quality_scores", scores) == {"dropped_fraction": 0.25}


def test_the_order_is_counted_by_arm_and_reason() -> None:
    deferred = pl.DataFrame(
        {"prompt_id": ["a", "a", "b", "c"], "reason_code": ["too_long", "too_long", "tail", "tail"]}
    )
    assert numbers_of("deferred_prompts", deferred) == {"n_tail": 2, "n_too_long": 1}
    metrics = pl.DataFrame(
        {
            "arm": ["clustered", "clustered", "shuffle"],
            "cluster_entropy": [1.0, 2.0, 9.0],
            "feature_overlap": [0.5, None, 0.1],
            "mean_quality": pl.Series([None] * 3, dtype=pl.Float64),
        }
    )
    assert numbers_of("batch_metrics", metrics) == {
        "cluster_entropy_clustered": 1.5,
        "feature_overlap_clustered": 0.5,
    }


def test_signals_are_followed_by_label() -> None:
    evidence = pl.DataFrame(
        {
            "label": ["correct"] * 3,
            "predictor": ["sae_max", "sae_mean", "length"],
            "value": [0.7, 0.8, 0.6],
            "over_length": [0.1, 0.2, None],
        }
    )
    assert numbers_of("signal_evidence", evidence) == {
        "correct_best": 0.8,
        "correct_sae": 0.8,
        "correct_sae_over_length": 0.2,
    }
