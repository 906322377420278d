from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save
from scipy import sparse
from sklearn.metrics import roc_auc_score

from saerl_assets.domain.calibration import Calibration
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.linear_models import LinearModel
from saerl_assets.domain.logistic_regression import logistic
from saerl_assets.domain.predictors import PooledFeatures, WholeMatrix
from saerl_assets.domain.probes import Probe, from_arrays, to_arrays
from saerl_assets.domain.quality import ProbeResult, encoders_of, train_probe
from saerl_assets.domain.quality_filter import SET_APART, score_quality
from saerl_assets.domain.spec import QualitySpec
from saerl_assets.domain.threads import one_thread
from saerl_assets_tests.domain.feature_sets import (
    feature_set,
    label_frame,
    make_prompt_ids,
    no_labels,
    planted_rows,
    prompt_frame,
)
from saerl_assets_tests.domain.table_shapes import assert_is_table

N_PROMPTS, N_EVALUATION = 600, 60
N_TRAIN = N_PROMPTS - N_EVALUATION
FEATURES = feature_set(planted_rows(N_PROMPTS, 50, seed=0, density=0.3))
POOLED = PooledFeatures(FEATURES, "max", "sae_max")
PROMPTS = prompt_frame(FEATURES.prompt_ids, n_evaluation=N_EVALUATION)
PROBABILITY = logistic(FEATURES.csr("max")[:, :3].toarray().astype(np.float64) @ [1.5, -2.0, 1.5])
BINARY = np.random.default_rng(1).binomial(1, PROBABILITY).astype(np.float64)
PASS_RATE = np.random.default_rng(2).binomial(8, PROBABILITY) / 8


def labels_of(rows: slice, values: np.ndarray = BINARY, *, n_observations: int = 1) -> pl.DataFrame:
    return label_frame("correct", FEATURES.prompt_ids[rows], values[rows], n_observations=n_observations)


def train(labels: pl.DataFrame, **settings_: object) -> ProbeResult:
    return train_probe(POOLED, PROMPTS, labels, QualitySpec.model_validate(settings_), 0)


def metric(result: ProbeResult, rows: str = "held_out") -> dict[str, Any]:
    return result.metrics.row(by_predicate=pl.col("rows") == rows, named=True)


def score(result: ProbeResult, **settings_: object) -> pl.DataFrame:
    return score_quality(POOLED, PROMPTS, result, QualitySpec.model_validate(settings_))


def as_bytes(result: ProbeResult) -> dict[str, bytes]:
    """Everything that is kept of the probe."""
    assert result.probe is not None
    arrays, facts = to_arrays(result.probe)
    return {name: array.tobytes() for name, array in arrays.items()} | {"facts": repr(facts).encode()}


LEVEL = Probe(
    "logistic", LinearModel(np.ones(1), 0.0, 1.0), Calibration("isotonic", np.array([0.0, 2.0]), np.array([0.4, 0.4]))
)
"""The same probability for whatever scores."""

LEARNED = train(labels_of(slice(0, N_TRAIN)))


def test_planted_outcomes_are_predicted_for_prompts_without_a_label() -> None:
    scores = score(train(labels_of(slice(0, 400))))
    unseen = slice(400, N_PROMPTS)
    found = roc_auc_score(BINARY[unseen], scores["quality"][unseen].to_numpy())
    ceiling = roc_auc_score(BINARY[unseen], PROBABILITY[unseen])
    assert found > ceiling - 0.05
    assert scores["quality"].is_between(0, 1).all()


def test_held_out_figures_are_those_of_unseen_prompts() -> None:
    assert_is_table(LEARNED.metrics, "quality_probe")
    held_out, fitted = metric(LEARNED), metric(LEARNED, "fitted")
    fresh = roc_auc_score(BINARY[N_TRAIN:], score(LEARNED)["quality"][N_TRAIN:].to_numpy())
    assert held_out["auroc"] == pytest.approx(fresh, abs=0.08)
    assert 0.7 < held_out["auroc"] < fitted["auroc"]
    assert fitted["brier"] < held_out["brier"] < 0.25
    assert held_out["base_rate"] == pytest.approx(BINARY[:N_TRAIN].mean())
    assert held_out["n_rows"] == N_TRAIN
    assert LEARNED.held_out_auroc == held_out["auroc"]


def test_pass_rates_are_learned_from_and_measured_by_their_rollouts() -> None:
    result = train(labels_of(slice(0, N_TRAIN), PASS_RATE, n_observations=8))
    quality = score(result)["quality"].to_numpy()
    assert np.corrcoef(quality, PROBABILITY)[0, 1] > np.corrcoef(score(LEARNED)["quality"], PROBABILITY)[0, 1]
    assert metric(result)["auroc"] < 0.95, "two outcomes of one prompt cannot be told apart"


def test_more_observations_weigh_more() -> None:
    """The half with 20 observations says the contrary of the half with 1."""
    low, high = slice(0, 270), slice(270, 540)
    labels = pl.concat([labels_of(low, 1 - BINARY), labels_of(high, BINARY, n_observations=20)])
    quality = score(train(labels))["quality"].to_numpy()
    assert np.corrcoef(quality, PROBABILITY)[0, 1] > 0.7


def test_the_number_of_observations_of_all_prompts_changes_nothing() -> None:
    one, eight = (train(labels_of(slice(0, 200), PASS_RATE, n_observations=n)) for n in (1, 8))
    assert as_bytes(one) == as_bytes(eight)
    assert one.metrics.drop("n_observations").equals(eight.metrics.drop("n_observations"))
    assert eight.metrics["n_observations"].to_list() == [1600, 1600]


def test_labels_of_evaluation_prompts_are_not_learned_from() -> None:
    result = train(pl.concat([labels_of(slice(0, N_TRAIN)), labels_of(slice(N_TRAIN, N_PROMPTS), 1 - BINARY)]))
    assert score(result).equals(score(LEARNED))
    assert "Left out: 60 values of a prompt set apart" in str(metric(result)["explanation"])


def test_random_labels_are_at_chance_and_filter_nothing() -> None:
    found = []
    for seed in range(4):
        shuffled = np.random.default_rng(seed).permutation(BINARY)
        result = train(labels_of(slice(0, N_TRAIN), shuffled))
        found.append(metric(result)["auroc"])
        scores = score(result, min_auroc=0.6)
        assert scores["kept"].all()
        assert "under quality.min_auroc = 0.6: nothing is dropped" in scores["reason"][0]
    assert np.mean(found) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (no_labels(), "No label 'correct' to learn from: add [labels.correct] to the spec, or append outcomes"),
        (labels_of(slice(0, 5)), "Only 5 training prompts with label 'correct'"),
        (labels_of(slice(0, 80), np.ones(N_PROMPTS)), "is 1 for all of its 80 training prompts"),
        (labels_of(slice(0, 80), np.zeros(N_PROMPTS)), "is 0 for all of its 80 training prompts"),
        (labels_of(slice(0, 80), np.full(N_PROMPTS, 0.5)), "is 0.5 for all of its 80 training prompts"),
        (labels_of(slice(0, 80), np.full(N_PROMPTS, np.nan)), "80 values not a finite number"),
        (labels_of(slice(0, 80), 100 * BINARY), "from 0 to 100, but quality.label takes shares"),
        (labels_of(slice(N_TRAIN, N_PROMPTS)), "label prompts of the training split"),
    ],
)
def test_without_a_probe_nothing_is_filtered_and_the_reason_said(labels: pl.DataFrame, words: str) -> None:
    result = train(labels)
    assert result.probe is None
    assert result.held_out_auroc is None
    assert_is_table(result.metrics, "quality_probe")
    assert result.metrics["probe"].to_list() == ["none"]
    assert words in result.metrics["explanation"][0]
    assert result.metrics["explanation"][0].endswith("Quality filters nothing.")
    scores = score(result)
    assert_is_table(scores, "quality_scores")
    assert scores["kept"].all()
    assert scores["quality"].null_count() == N_PROMPTS
    assert "no probe was trained" in scores["reason"][0]


def test_the_lowest_share_of_the_training_split_is_dropped() -> None:
    scores = score(LEARNED, filter="share", drop_fraction=0.1)
    assert_is_table(scores, "quality_scores")
    assert scores["prompt_id"].to_list() == FEATURES.prompt_ids
    train_scores = scores[:N_TRAIN]
    dropped = train_scores.filter(~pl.col("kept"))
    assert len(dropped) == N_TRAIN // 10
    assert dropped["quality"].max() <= train_scores.filter("kept")["quality"].min()  # type: ignore[operator]
    assert dropped["reason"].unique().to_list() == [
        "in the share quality.drop_fraction = 0.1 of lowest predicted quality"
    ]


def test_prompts_set_apart_are_scored_and_kept() -> None:
    apart = score(LEARNED, filter="threshold", threshold=1.0, max_dropped_fraction=1.0)[N_TRAIN:]
    assert apart["kept"].all()
    assert apart["quality"].null_count() == 0
    assert apart["reason"].unique().to_list() == [SET_APART]


def test_a_threshold_drops_the_worst_first_and_no_more_than_allowed() -> None:
    scores = score(LEARNED, filter="threshold", threshold=0.5, max_dropped_fraction=0.05)[:N_TRAIN]
    n_under = int((scores["quality"] < 0.5).sum())
    dropped = scores.filter(~pl.col("kept"))
    spared = scores.filter(pl.col("reason").str.contains("used up"))
    assert len(dropped) == N_TRAIN // 20 < n_under
    assert len(spared) == n_under - len(dropped)
    assert spared["kept"].all()
    assert dropped["quality"].max() <= spared["quality"].min()  # type: ignore[operator]
    rest = scores.filter(pl.col("quality") >= 0.5)["reason"].unique().to_list()
    assert rest == ["predicted quality at or over quality.threshold = 0.5"]


def test_a_score_at_the_threshold_is_kept() -> None:
    exact = score(LEARNED)["quality"][:N_TRAIN].sort()[30]
    scores = score(LEARNED, filter="threshold", threshold=exact)[:N_TRAIN]
    assert (~scores["kept"]).sum() == 30
    assert scores.filter(pl.col("quality") == exact)["kept"].all()


@settings(deadline=None, max_examples=40)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.sampled_from(["none", "threshold", "share"]))
def test_no_filter_drops_more_than_it_may(
    threshold: float, drop_fraction: float, max_dropped: float, kind: str
) -> None:
    scores = score(
        LEARNED,
        filter=kind,
        threshold=threshold,
        drop_fraction=drop_fraction,
        max_dropped_fraction=max_dropped,
    )
    dropped = scores.filter(~pl.col("kept"))
    assert len(dropped) <= max_dropped * N_TRAIN + 1e-6
    if kind == "none":
        assert len(dropped) == 0
    if kind == "threshold":
        assert (dropped["quality"] < threshold).all()
    if kind == "share":
        assert len(dropped) == int(min(drop_fraction, max_dropped) * N_TRAIN + 1e-9)
    assert scores["reason"].str.len_chars().min() > 10  # type: ignore[operator]


def test_equal_scores_are_dropped_in_the_order_of_the_prompts() -> None:
    features = feature_set(np.ones((20, 1)))
    probe = ProbeResult(LEVEL, LEARNED.metrics)
    spec = QualitySpec(filter="share", drop_fraction=0.2)
    scores = score_quality(PooledFeatures(features, "max"), prompt_frame(features.prompt_ids), probe, spec)
    assert scores["kept"].to_list() == [False] * 4 + [True] * 16


def test_a_share_is_counted_exactly() -> None:
    features = feature_set(np.ones((100, 1)))
    probe = ProbeResult(LEVEL, LEARNED.metrics)
    spec = QualitySpec(filter="share", drop_fraction=0.29, max_dropped_fraction=1.0)
    scores = score_quality(PooledFeatures(features, "max"), prompt_frame(features.prompt_ids), probe, spec)
    assert (~scores["kept"]).sum() == 29


@pytest.mark.parametrize(("auroc", "drops"), [(None, False), (0.5499, False), (0.55, True), (0.9, True)])
def test_a_probe_filters_only_from_its_threshold_on(auroc: float | None, drops: bool) -> None:
    metrics = LEARNED.metrics.with_columns(auroc=pl.lit(auroc, pl.Float64), auroc_low=pl.lit(0.51))
    scores = score(ProbeResult(LEARNED.probe, metrics))
    assert scores["kept"].all() is not drops


@pytest.mark.parametrize("kind", ["logistic", "ridge", "mlp"])
def test_the_order_of_labels_and_the_threads_change_no_byte(kind: str) -> None:
    first, again = (
        train(labels_of(slice(0, 150)).sample(fraction=1, shuffle=True, seed=seed), probe=kind) for seed in (3, 4)
    )
    with one_thread():
        alone = train(labels_of(slice(0, 150)), probe=kind)
    for other in (again, alone):
        assert as_bytes(other) == as_bytes(first)
        assert other.metrics.equals(first.metrics)
        assert other.curve.equals(first.curve)


@pytest.mark.parametrize("kind", ["logistic", "ridge", "mlp"])
def test_every_kind_predicts_planted_outcomes_with_probabilities_that_hold(kind: str) -> None:
    result = train(labels_of(slice(0, N_TRAIN)), probe=kind)
    assert_is_table(result.metrics, "quality_probe")
    assert_is_table(result.curve, "probe_calibration")
    held_out = metric(result)
    assert held_out["probe"] == kind
    assert 0.7 < held_out["auroc_low"] < held_out["auroc"] < held_out["auroc_high"]
    assert held_out["calibration_error"] < 0.1
    assert held_out["brier"] < 0.9 * held_out["base_rate"] * (1 - held_out["base_rate"])
    assert held_out["calibration"] == "platt"
    unseen = score(result)[N_TRAIN:]
    assert roc_auc_score(BINARY[N_TRAIN:], unseen["quality"].to_numpy()) > 0.7
    assert result.curve["n_rows"].sum() == N_TRAIN


def test_the_best_kind_is_chosen_and_recorded() -> None:
    """The sign of a product of two features cannot be told by a line, but by a perceptron."""
    rows = np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)
    outcomes = (rows[:, 0] * rows[:, 1] > 0).astype(np.float64)
    names = make_prompt_ids(1000)
    spec = QualitySpec(probe="best")
    found = train_probe(
        WholeMatrix(sparse.csr_matrix(rows), "dense_mean"),
        prompt_frame(names),
        label_frame("correct", names, outcomes),
        spec,
        0,
    )
    held_out = metric(found)
    candidates = json.loads(str(held_out["candidates"]))
    assert held_out["probe"] == "mlp"
    assert set(candidates) == {"logistic", "ridge", "mlp"}
    assert candidates["mlp"] > 0.8 > max(candidates["logistic"], candidates["ridge"])
    assert held_out["auroc"] > 0.8
    assert held_out["calibration"] == "isotonic"
    assert "the best by AUROC of inner folds" in str(held_out["explanation"])


def test_a_label_that_the_spec_names_and_no_row_has_is_said_to_be_unreadable() -> None:
    names = make_prompt_ids(30)
    rows = WholeMatrix(sparse.csr_matrix(np.ones((30, 1), dtype=np.float32)))
    nothing = label_frame("other", [], [])
    result = train_probe(rows, prompt_frame(names), nothing, QualitySpec(), 0, is_named=True)
    assert "no value of any of the 30 prompts could be read as a finite number" in str(metric(result)["explanation"])


def test_rare_outcomes_are_predicted_with_their_own_frequency() -> None:
    rare_probability = PROBABILITY * np.exp(-3) / (1 - PROBABILITY + PROBABILITY * np.exp(-3))
    rare = np.random.default_rng(5).binomial(1, rare_probability).astype(np.float64)
    result = train(labels_of(slice(0, N_TRAIN), rare))
    held_out, scores = metric(result), score(result)["quality"]
    assert rare.mean() < 0.25
    assert held_out["auroc"] > 0.7
    assert held_out["calibration_error"] < 0.05
    assert scores.mean() == pytest.approx(rare.mean(), abs=0.03)


def test_responses_to_one_prompt_are_held_out_together() -> None:
    """Their outcomes are those of the prompt, drawn at random: whoever has seen one response knows the others."""
    rng = np.random.default_rng(0)
    question = np.repeat(np.arange(100), 6)
    names = make_prompt_ids(600)
    rows = sparse.csr_matrix(np.eye(100, dtype=np.float32)[question])
    labels = label_frame("correct", names, rng.integers(0, 2, 100)[question].astype(np.float64))
    prompts = prompt_frame(names).with_columns(response=pl.lit("so"), messages=pl.Series(question).cast(pl.String))
    alone = prompts.with_columns(response=pl.lit(None, pl.String))
    spec = QualitySpec()
    leaky = train_probe(WholeMatrix(rows), alone, labels, spec, 0)
    assert leaky.held_out_auroc is not None
    assert leaky.held_out_auroc > 0.95
    honest = train_probe(WholeMatrix(rows), prompts, labels, spec, 0)
    assert honest.held_out_auroc is not None
    assert honest.held_out_auroc < 0.6
    assert "filters nothing" in str(metric(honest)["explanation"])


def test_no_more_labels_are_learned_from_than_allowed() -> None:
    result = train(labels_of(slice(0, N_TRAIN)), max_labels=200)
    assert metric(result)["n_rows"] == 200
    assert metric(result)["n_observations"] == N_TRAIN


def test_a_probe_that_may_be_chance_filters_nothing() -> None:
    metrics = LEARNED.metrics.with_columns(auroc_low=pl.lit(0.49))
    scores = score(ProbeResult(LEARNED.probe, metrics))
    assert scores["kept"].all()
    assert "may be chance: its 95% interval begins at 0.490: nothing is dropped" in scores["reason"][0]


@pytest.mark.parametrize("kind", ["logistic", "ridge", "mlp"])
def test_the_probe_gives_the_scores_by_itself(kind: str) -> None:
    """What is kept of a probe is enough to score with, to the last bit."""
    result = train(labels_of(slice(0, 300)), probe=kind)
    assert result.probe is not None
    arrays, facts = to_arrays(result.probe)
    again = from_arrays(load(save(arrays)), json.loads(json.dumps(facts)))
    assert score(ProbeResult(again, result.metrics)).equals(score(result))


def test_equal_probabilities_are_dropped_in_the_order_of_the_score() -> None:
    features = feature_set(np.arange(1.0, 21.0)[:, None])
    spec = QualitySpec(filter="share", drop_fraction=0.2)
    predictor = PooledFeatures(features, "max")
    scores = score_quality(predictor, prompt_frame(features.prompt_ids), ProbeResult(LEVEL, LEARNED.metrics), spec)
    assert scores["quality"].unique().to_list() == [0.4]
    worst = np.argsort(features.csr("max").toarray().ravel())[:4]
    assert np.flatnonzero(~scores["kept"].to_numpy()).tolist() == sorted(worst.tolist())


def test_a_predictor_of_other_prompts_is_refused() -> None:
    with pytest.raises(ValueError, match="a row for every prompt"):
        score_quality(WholeMatrix(FEATURES.csr("max")[:10]), PROMPTS, LEARNED, QualitySpec())


@settings(deadline=None, max_examples=15)
@given(
    st.integers(1, 15),
    st.sampled_from(["zeros", "ones", "mixed"]),
    st.sampled_from(["none", "one correct", "halves", "shares"]),
    st.sampled_from(["logistic", "ridge", "mlp", "best"]),
)
def test_any_small_version_gets_a_verdict_for_every_prompt(n_prompts: int, rows: str, kind: str, probe: str) -> None:
    dense = {
        "zeros": np.zeros((n_prompts, 4)),
        "ones": np.ones((n_prompts, 4)),
        "mixed": np.eye(n_prompts),
    }
    features = feature_set(dense[rows])
    kinds: dict[str, list[float]] = {
        "none": [],
        "one correct": [float(i == 0) for i in range(n_prompts)],
        "halves": [float(i % 2) for i in range(n_prompts)],
        "shares": [i / n_prompts for i in range(n_prompts)],
    }
    values = kinds[kind]
    labels = label_frame("correct", features.prompt_ids[: len(values)], values)
    prompts, spec = (
        prompt_frame(features.prompt_ids),
        QualitySpec.model_validate({"probe": probe, "min_labels": 10, "min_auroc": 0.0}),
    )
    result = train_probe(PooledFeatures(features, "max"), prompts, labels, spec, 0)
    scores = score_quality(PooledFeatures(features, "max"), prompts, result, spec)
    assert_is_table(result.metrics, "quality_probe")
    assert_is_table(scores, "quality_scores")
    assert scores["kept"].sum() >= 0.8 * n_prompts
    assert result.metrics["explanation"].str.len_chars().min() > 20  # type: ignore[operator]


def test_an_undefined_activation_is_refused() -> None:
    dense = planted_rows(60, 5, seed=0)
    dense[3, 2] = np.nan
    features = feature_set(dense)
    prompts = prompt_frame(features.prompt_ids)
    labels = label_frame("correct", features.prompt_ids, [0.0, 1.0] * 30)
    with pytest.raises(SaerlError, match="no finite numbers"):
        train_probe(PooledFeatures(features, "max"), prompts, labels, QualitySpec(), 0)
    with pytest.raises(SaerlError, match="no finite numbers"):
        score_quality(PooledFeatures(features, "max"), prompts, LEARNED, QualitySpec())


@pytest.mark.parametrize(
    ("predictor", "encoders"),
    [
        ("sae_max", "sae-15 sae-20"),
        ("sae_max+mean", "sae-15 sae-20"),
        ("combined", "sae-15 sae-20"),
        ("dense_mean", "read-15 read-20"),
        ("dense_last", "read-15 read-20"),
        ("random_sae", "control-15 control-20"),
        ("sentence", "sentences"),
        ("length", None),
        ("tfidf", None),
        ("metadata", None),
    ],
)
def test_what_makes_a_predictor_is_known(predictor: str, encoders: str | None) -> None:
    layers = [20, 15]
    weights = pl.DataFrame(
        {
            "layer": layers,
            "encoder_id": [f"sae-{layer}" for layer in layers],
            "reading_id": [f"read-{layer}" for layer in layers],
        }
    )
    controls = pl.DataFrame({"layer": layers, "encoder_id": [f"control-{layer}" for layer in layers]})
    assert encoders_of(predictor, weights, controls, "sentences") == encoders
