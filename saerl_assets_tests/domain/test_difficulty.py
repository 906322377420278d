from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import spearmanr

from saerl_assets.domain.difficulty import DifficultyResult, score_difficulty
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.predictors import WholeMatrix
from saerl_assets.domain.spec import DifficultySpec
from saerl_assets.domain.threads import one_thread
from saerl_assets_tests.domain.feature_sets import (
    MemoryFeatureSet,
    feature_set,
    label_frame,
    no_labels,
    planted_rows,
    prompt_frame,
)
from saerl_assets_tests.domain.table_shapes import assert_is_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Score: TypeAlias = Literal["auto", "proxy", "count", "count_per_token", "magnitude", "label"]
    Regressor: TypeAlias = Literal["elastic_net", "ridge", "best"]

N_PROMPTS = 400


def planted() -> tuple[MemoryFeatureSet, NDArray[np.float64]]:
    """Features, and the difficulty from 0 to 100 that six of them make."""
    features = feature_set(planted_rows(N_PROMPTS, 60, seed=0, density=0.3))
    signal = features.csr("max")[:, :6].toarray().astype(np.float64) @ [3.0, -3.0, 2.0, 2.0, -1.0, 1.0]
    return features, 100 * (signal - signal.min()) / np.ptp(signal)


FEATURES, TRUTH = planted()
PROMPTS = prompt_frame(FEATURES.prompt_ids, n_evaluation=40)
NOISY = TRUTH + np.random.default_rng(1).normal(0, 3, N_PROMPTS)
SHUFFLED = np.random.default_rng(2).permutation(TRUTH)


def labels_of(rows: slice, values: NDArray[np.float64] = NOISY) -> pl.DataFrame:
    return label_frame("difficulty", FEATURES.prompt_ids[rows], values[rows])


def score(labels: pl.DataFrame, *, seed: int = 0, **settings_: object) -> DifficultyResult:
    spec = DifficultySpec.model_validate(settings_)
    return score_difficulty(FEATURES, PROMPTS, labels, spec, seed)


def metric(result: DifficultyResult, score_name: str, rows: str = "held_out") -> dict[str, object]:
    return result.metrics.row(by_predicate=(pl.col("score_name") == score_name) & (pl.col("rows") == rows), named=True)


ALL_LABELS = labels_of(slice(0, N_PROMPTS))
TRAIN_LABELS = labels_of(slice(0, 360))
LEARNED = score(TRAIN_LABELS)


def test_planted_difficulty_is_recovered_for_prompts_without_a_label() -> None:
    result = score(labels_of(slice(0, 200)))
    assert spearmanr(result.scores["difficulty"][200:], TRUTH[200:]).statistic > 0.8
    assert result.scores["score_name"].unique().to_list() == ["proxy"]


def test_held_out_figures_are_those_of_unseen_prompts() -> None:
    held_out, fitted = metric(LEARNED, "proxy"), metric(LEARNED, "proxy", "fitted")
    assert held_out["n_rows"] == fitted["n_rows"] == 360
    assert 0.8 < held_out["spearman"] < fitted["spearman"] < 1  # type: ignore[operator]
    assert 0.6 < held_out["r2"] < fitted["r2"] < 1  # type: ignore[operator]
    for name in ("count", "count_per_token", "magnitude", "length"):
        assert abs(metric(LEARNED, name)["spearman"]) < 0.5  # type: ignore[arg-type]
        assert metric(LEARNED, name)["r2"] < 0.2  # type: ignore[operator]


def test_the_proxy_is_on_the_labels_scale() -> None:
    proxy = LEARNED.scores["proxy"].to_numpy()
    assert np.sqrt(np.mean((proxy - TRUTH) ** 2)) < 0.5 * TRUTH.std()


def test_labels_of_evaluation_prompts_are_not_learned_from() -> None:
    wild = labels_of(slice(360, 400), np.full(N_PROMPTS, 1e6))
    result = score(pl.concat([TRAIN_LABELS, wild]))
    assert result.scores.equals(LEARNED.scores)
    assert "Left out: 40 values of a prompt set apart" in str(metric(result, "proxy")["explanation"])


def test_random_labels_are_not_ranked() -> None:
    result = score(labels_of(slice(0, 360), SHUFFLED))
    assert abs(metric(result, "proxy")["spearman"] or 0.0) < 0.15  # type: ignore[arg-type]
    assert (metric(result, "proxy")["r2"] or 0.0) < 0.05  # type: ignore[operator]


def test_auto_takes_the_magnitude_where_a_proxy_does_not_rank_unseen_prompts() -> None:
    found = set()
    for seed in range(8):
        result = score(labels_of(slice(0, 360), SHUFFLED), seed=seed, regressor="elastic_net")
        trusted = (metric(result, "proxy")["spearman"] or 0.0) > 0  # type: ignore[operator]
        found.add(trusted)
        assert set(result.scores["score_name"]) == {"proxy" if trusted else "magnitude"}
        assert ("magnitude" in str(metric(result, "proxy")["explanation"])) is not trusted
    assert found == {True, False}, "the seeds no longer show both cases"


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (no_labels(), "No label 'difficulty' to learn from: add [labels.difficulty] to the spec"),
        (labels_of(slice(0, 5)), "Only 5 training prompts with label 'difficulty'"),
        (labels_of(slice(0, 100), np.full(N_PROMPTS, 7.0)), "is 7 for all of its 100 training prompts"),
        (labels_of(slice(0, 100), np.full(N_PROMPTS, np.nan)), "100 values not a finite number"),
        (labels_of(slice(360, 400)), "label prompts of the training split"),
        (label_frame("other", FEATURES.prompt_ids, TRUTH), "No label 'difficulty'"),
        (label_frame("difficulty", ["elsewhere"] * 1, [1.0]), "1 value of a prompt that is not in this version"),
    ],
)
@pytest.mark.parametrize("name", ["auto", "proxy", "magnitude"])
def test_without_a_proxy_the_magnitude_is_used_and_the_reason_said(
    labels: pl.DataFrame, words: str, name: Score
) -> None:
    result = score(labels, score=name)
    assert_is_table(result.scores, "difficulty_scores")
    assert_is_table(result.metrics, "difficulty_proxy")
    assert result.scores["proxy"].null_count() == N_PROMPTS
    assert result.scores["difficulty"].equals(result.scores["magnitude"], check_names=False)
    assert set(result.scores["score_name"]) == {"magnitude"}
    row = metric(result, "proxy")
    assert row["spearman"] is None
    assert words in str(row["explanation"])


def test_a_label_that_the_spec_names_and_no_row_has_is_said_to_be_unreadable() -> None:
    result = score_difficulty(FEATURES, PROMPTS, no_labels(), DifficultySpec(), 0, is_named=True)
    for name in ("proxy", "length"):
        explanation = str(metric(result, name)["explanation"])
        assert "no value of any of the 400 prompts could be read as a finite number" in explanation
        assert "add [labels" not in explanation


def test_baselines_are_measured_on_few_labels_and_skipped_on_none() -> None:
    few, none = score(labels_of(slice(0, 5))), score(no_labels())
    assert metric(few, "length")["n_rows"] == 5
    assert metric(few, "length")["spearman"] is not None
    assert metric(none, "length")["spearman"] is None
    assert "append outcomes" in str(metric(none, "length")["explanation"])


def test_count_and_magnitude_come_from_the_features() -> None:
    dense = FEATURES.csr("max").toarray()
    result = score(no_labels(), score="count")
    assert result.scores["prompt_id"].to_list() == FEATURES.prompt_ids
    assert result.scores["n_active_features"].to_list() == (dense > 0).sum(axis=1).tolist()
    assert result.scores["difficulty"].to_list() == (dense > 0).sum(axis=1).tolist()
    assert set(result.scores["score_name"]) == {"count"}
    np.testing.assert_allclose(result.scores["magnitude"].to_numpy(), 1.5 * dense.sum(axis=1), rtol=1e-6)


def test_known_labels_are_kept_and_the_proxy_fills_in() -> None:
    result = score(pl.concat([labels_of(slice(0, 100)), labels_of(slice(390, 400))]), score="label")
    known = [*range(100), *range(390, 400)]
    names = np.array(result.scores["score_name"])
    assert np.flatnonzero(names == "label").tolist() == known
    assert set(names) == {"label", "proxy"}
    np.testing.assert_array_equal(result.scores["difficulty"].to_numpy()[known], NOISY[known])
    others = names == "proxy"
    np.testing.assert_array_equal(
        result.scores["difficulty"].to_numpy()[others], result.scores["proxy"].to_numpy()[others]
    )


def test_without_a_proxy_the_magnitude_fills_in_on_the_labels_scale() -> None:
    result = score(labels_of(slice(0, 20)), score="label")
    names = np.array(result.scores["score_name"])
    filled = result.scores.filter(pl.Series(names == "magnitude"))
    assert len(filled) == N_PROMPTS - 20
    assert filled["difficulty"].is_between(NOISY[:20].min(), NOISY[:20].max()).all()
    assert spearmanr(filled["difficulty"], filled["magnitude"]).statistic == pytest.approx(1)


def test_a_label_without_any_value_falls_back_to_the_magnitude() -> None:
    result = score(no_labels(), score="label")
    assert set(result.scores["score_name"]) == {"magnitude"}


def test_only_the_asked_number_of_labels_is_learned_from() -> None:
    result = score(TRAIN_LABELS, n_labels=120)
    assert metric(result, "proxy")["n_rows"] == metric(result, "length")["n_rows"] == 120
    assert result.scores["proxy"].null_count() == 0
    assert not result.scores.equals(LEARNED.scores)


def test_the_rank_follows_the_difficulty_from_zero_to_one() -> None:
    ordered = LEARNED.scores.sort("difficulty")["difficulty_rank"]
    assert ordered[0] == 0
    assert ordered[-1] == 1
    assert ordered.is_sorted()


def test_the_order_of_labels_and_the_threads_change_no_byte() -> None:
    again = score(TRAIN_LABELS.sample(fraction=1, shuffle=True, seed=3))
    with one_thread():
        alone = score(TRAIN_LABELS)
    for other in (again, alone):
        assert other.scores.equals(LEARNED.scores)
        assert other.metrics.equals(LEARNED.metrics)


def test_count_per_token_is_the_mean_number_of_active_features() -> None:
    result = score(no_labels(), score="count_per_token")
    dense = FEATURES.csr("max").toarray()
    assert result.scores["n_active_per_token"].to_list() == ((dense > 0).sum(axis=1) / 2).tolist()
    assert result.scores["difficulty"].equals(result.scores["n_active_per_token"], check_names=False)
    assert set(result.scores["score_name"]) == {"count_per_token"}


@pytest.mark.parametrize("regressor", ["elastic_net", "best"])
def test_other_regressions_recover_planted_difficulty_too(regressor: str) -> None:
    result = score(labels_of(slice(0, 200)), regressor=regressor)
    assert spearmanr(result.scores["difficulty"][200:], TRUTH[200:]).statistic > 0.8
    assert any(name in str(metric(result, "proxy")["explanation"]) for name in ("Ridge regression on", "ElasticNet on"))


def test_what_length_knows_is_learned_where_it_is_asked_for() -> None:
    lengths = PROMPTS["n_tokens"].to_numpy().astype(float)
    labels = labels_of(slice(0, 360), lengths + np.random.default_rng(5).normal(0, 0.3, N_PROMPTS))
    with_it = score(labels, with_length=True, regressor="ridge")
    without = score(labels, regressor="ridge")
    assert metric(with_it, "proxy")["spearman"] > 0.8  # type: ignore[operator]
    assert (metric(without, "proxy")["spearman"] or 0.0) < 0.4  # type: ignore[operator]
    assert metric(with_it, "proxy")["over_length"] < 0.1  # type: ignore[operator]


def test_the_difference_to_length_is_shown_with_its_interval() -> None:
    row = metric(LEARNED, "proxy")
    assert row["low"] < row["spearman"] < row["high"]  # type: ignore[operator]
    assert 0 < row["over_length_low"] < row["over_length"] < row["over_length_high"]  # type: ignore[operator]
    length = metric(LEARNED, "length")
    assert length["over_length"] == pytest.approx(length["spearman"] - abs(length["spearman"]))  # type: ignore[operator, arg-type]
    assert metric(LEARNED, "proxy", "fitted")["low"] is None


def test_another_predictor_is_learned_from_and_named_with_the_reason() -> None:
    rows = np.stack([TRUTH, np.ones(N_PROMPTS)], axis=1)
    given = WholeMatrix(sparse.csr_matrix(rows, dtype=np.float32), "oracle")
    spec = DifficultySpec(regressor="ridge")
    result = score_difficulty(FEATURES, PROMPTS, TRAIN_LABELS, spec, 0, predictor=given, chosen="It knows.")
    explanation = str(metric(result, "proxy")["explanation"])
    assert "Ridge regression on oracle," in explanation
    assert "It knows." in explanation
    assert metric(result, "proxy")["spearman"] > 0.95  # type: ignore[operator]


def test_prompts_of_one_step_of_the_scale_are_ordered_by_their_prediction() -> None:
    """Labels of two values make the scale one step or a few; no two prompts end up equal for it."""
    result = score(labels_of(slice(0, 360), (np.median(TRUTH) < TRUTH).astype(float)))
    proxy = result.scores["proxy"].to_numpy()
    assert -1e-5 < proxy.min() < proxy.max() < 1 + 1e-5
    assert len(np.unique(proxy)) > 0.95 * N_PROMPTS
    assert spearmanr(proxy, TRUTH).statistic > 0.7


@pytest.mark.parametrize("regressor", ["ridge", "elastic_net"])
def test_responses_to_one_question_are_held_out_together(regressor: str) -> None:
    """Their label is the question's, drawn at random, and columns name the question: nothing foretells the others."""
    question = np.repeat(np.arange(100), 4)
    rows = WholeMatrix(sparse.csr_matrix(np.eye(100, dtype=np.float32)[question]), "which question")
    labels = label_frame("difficulty", FEATURES.prompt_ids, np.random.default_rng(0).normal(size=100)[question])
    prompts = prompt_frame(FEATURES.prompt_ids).with_columns(
        response=pl.lit("so"), messages=pl.Series([f'[{{"role":"user","content":"{name}"}}]' for name in question])
    )
    alone = prompts.with_columns(response=pl.lit(None, pl.String))
    spec = DifficultySpec.model_validate({"regressor": regressor})
    leaky = score_difficulty(FEATURES, alone, labels, spec, 0, predictor=rows)
    assert metric(leaky, "proxy")["spearman"] > 0.6  # type: ignore[operator]
    honest = score_difficulty(FEATURES, prompts, labels, spec, 0, predictor=rows)
    assert (metric(honest, "proxy")["spearman"] or 0.0) < 0.2  # type: ignore[operator]


@settings(deadline=None, max_examples=15)
@given(
    st.integers(1, 15),
    st.sampled_from(["zeros", "ones", "mixed"]),
    st.sampled_from(["auto", "proxy", "count", "count_per_token", "magnitude", "label"]),
    st.sampled_from(["none", "some", "constant", "binary"]),
    st.sampled_from(["elastic_net", "ridge", "best"]),
)
def test_any_small_version_gets_a_score_for_every_prompt(
    n_prompts: int, rows: str, name: Score, kind: str, regressor: Regressor
) -> None:
    dense = {
        "zeros": np.zeros((n_prompts, 4)),
        "ones": np.ones((n_prompts, 4)),
        "mixed": np.eye(n_prompts),
    }
    features = feature_set(dense[rows])
    kinds: dict[str, list[float]] = {
        "none": [],
        "some": [float(i) for i in range(n_prompts)],
        "constant": [3.0] * n_prompts,
        "binary": [float(i == 0) for i in range(n_prompts)],
    }
    values = kinds[kind]
    labels = label_frame("difficulty", features.prompt_ids[: len(values)], values)
    spec = DifficultySpec(score=name, min_labels=10, regressor=regressor, with_length=len(kind) % 2 == 0)
    result = score_difficulty(features, prompt_frame(features.prompt_ids), labels, spec, 0)
    assert_is_table(result.scores, "difficulty_scores")
    assert_is_table(result.metrics, "difficulty_proxy")
    assert result.scores["difficulty"].is_finite().all()
    assert result.scores["difficulty_rank"].is_between(0, 1).all()
    assert result.metrics["explanation"].str.len_chars().min() > 20  # type: ignore[operator]


def test_an_undefined_activation_is_refused() -> None:
    dense = planted_rows(60, 5, seed=0)
    dense[3, 2] = np.inf
    features = feature_set(dense)
    labels = label_frame("difficulty", features.prompt_ids, np.arange(60.0))
    with pytest.raises(SaerlError, match="no finite numbers"):
        score_difficulty(features, prompt_frame(features.prompt_ids), labels, DifficultySpec(), 0)
