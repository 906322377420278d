"""What two controls are planned on: the dense state's own signals, and the labels' difficulty on one scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_rand_score

from saerl_assets.domain.clusters import assignment_frame, fit_clusters
from saerl_assets.domain.control_signals import (
    SIGNALS_SCHEMA,
    ControlSignals,
    KnownLabel,
    columns_planned_on,
    derive_control_signals,
)
from saerl_assets.domain.dense_states import summed_norms
from saerl_assets.domain.difficulty import score_difficulty
from saerl_assets.domain.predictors import WholeMatrix
from saerl_assets.domain.spec import VersionSpec
from saerl_assets_tests.domain.feature_sets import feature_set, label_frame, no_labels, planted_rows, prompt_frame
from saerl_assets_tests.domain.table_shapes import assert_is_table

N, N_EVALUATION, WIDTH = 240, 24, 16
RNG = np.random.default_rng(0)
GROUP = RNG.integers(0, 4, N)
TRUTH = RNG.normal(size=N)
FEATURES = feature_set(planted_rows(N, 50, seed=1, density=0.3))
PROMPTS = prompt_frame(FEATURES.prompt_ids, n_evaluation=N_EVALUATION)
IS_TRAIN = (PROMPTS["split"] == "train").to_numpy()
STATES = RNG.normal(size=(4, WIDTH))[GROUP] * 3 + RNG.normal(size=(N, WIDTH)) * 0.3 + 10
STATES[:, 0] = TRUTH * 5 + 40
DENSE = WholeMatrix(sparse.csr_matrix(STATES.astype(np.float32)), "dense_mean")
LABELS = label_frame("difficulty", FEATURES.prompt_ids, TRUTH)
FEW = label_frame("difficulty", FEATURES.prompt_ids[:80], TRUTH[:80])
BOTH = ("dense_state", "true_difficulty")


def spec_of(controls: tuple[str, ...] = BOTH, /, **difficulty: object) -> VersionSpec:
    return VersionSpec.model_validate(
        {
            "key": "some-v1",
            "data": {"source": "path:x.jsonl"},
            "clusters": {"k": 4},
            "difficulty": difficulty,
            "batches": {"controls": controls},
        }
    )


def derive(
    labels: pl.DataFrame, controls: tuple[str, ...] = BOTH, /, **difficulty: object
) -> tuple[ControlSignals, pl.DataFrame]:
    """The signals and the version's own scores."""
    spec = spec_of(controls, **difficulty)
    own = assignment_frame(fit_clusters(FEATURES, spec.clusters, spec.seed), FEATURES)
    scores = score_difficulty(FEATURES, PROMPTS, labels, spec.difficulty, spec.seed).scores
    return derive_control_signals(FEATURES, PROMPTS, labels, own, scores, spec, DENSE), scores


def rank(one: object, other: object) -> float:
    return float(spearmanr(np.asarray(one), np.asarray(other)).statistic)


@pytest.mark.parametrize("controls", [(), ("shuffle", "random_drop"), ("dense_state",), ("true_difficulty",), BOTH])
def test_there_is_what_is_asked_for_and_no_more(controls: tuple[str, ...]) -> None:
    found, _ = derive(LABELS, controls)
    assert_is_table(found.signals, "control_signals")
    asked = set(columns_planned_on(controls))
    assert {name for name in found.signals.columns[1:] if found.signals[name].count()} == asked
    assert found.signals.height == (N if asked else 0)
    assert all(found.signals[name].null_count() == 0 for name in asked)
    if asked:
        assert found.signals["prompt_id"].to_list() == FEATURES.prompt_ids


def test_nothing_is_computed_where_nothing_is_asked_for() -> None:
    """Neither features nor states nor scores are so much as looked at."""
    unusable: Any = None
    found = derive_control_signals(unusable, unusable, unusable, unusable, unusable, spec_of(("shuffle",)))
    assert found.signals.schema == SIGNALS_SCHEMA
    assert found.signals.is_empty()
    assert "batches.controls" in str(found.facts["explanation"])


def test_the_columns_are_those_that_the_controls_need() -> None:
    assert columns_planned_on(("shuffle", "random_clusters")) == []
    assert columns_planned_on(("true_difficulty", "dense_state", "shuffle")) == SIGNALS_SCHEMA.names()[1:]


def test_dense_clusters_are_those_of_the_states_as_many_as_the_saes() -> None:
    found, _ = derive(LABELS)
    assert adjusted_rand_score(GROUP, found.signals["dense_cluster_id"].to_numpy()) > 0.95
    assert found.facts["n_dense_clusters"] == 4
    assert abs(float(found.facts["cluster_agreement"])) < 0.1, "the features were drawn without the groups"


def test_k_is_the_saes_own_also_where_it_was_chosen_by_itself() -> None:
    spec = spec_of(("dense_state",)).model_copy(
        update={"clusters": spec_of().clusters.model_copy(update={"k": "auto"})}
    )
    own = pl.DataFrame({"prompt_id": FEATURES.prompt_ids, "cluster_id": np.arange(N) % 3 * 5})
    scores = score_difficulty(FEATURES, PROMPTS, LABELS, spec.difficulty, 0).scores
    found = derive_control_signals(FEATURES, PROMPTS, LABELS, own, scores, spec, DENSE)
    assert found.facts["n_dense_clusters"] == 3


def test_dense_difficulty_is_the_same_proxy_learned_from_the_states() -> None:
    found, scores = derive(FEW)
    beyond = slice(80, N)
    assert rank(found.signals["dense_difficulty"][beyond], TRUTH[beyond]) > 0.9
    assert rank(scores["difficulty"][beyond], TRUTH[beyond]) < 0.5, "the features do not know it"
    same = score_difficulty(FEATURES, PROMPTS, FEW, spec_of().difficulty, 0, predictor=DENSE).scores["difficulty"]
    assert found.signals["dense_difficulty"].equals(same, check_names=False)
    assert "Ridge regression on dense_mean" in str(found.facts["dense_difficulty"])
    assert "The proxy, held-out Spearman 1.000." in str(found.facts["dense_difficulty"]), "a dimension is the truth"
    assert float(found.facts["difficulty_agreement"]) == pytest.approx(
        rank(found.signals["dense_difficulty"], scores["difficulty"])
    )


def test_evaluation_labels_are_not_learned_from() -> None:
    wild = label_frame("difficulty", FEATURES.prompt_ids[-N_EVALUATION:], np.full(N_EVALUATION, 1e6))
    for score in ("auto", "magnitude"):
        clean, wilder = (derive(labels, score=score)[0].signals for labels in (FEW, pl.concat([FEW, wild])))
        assert wilder["dense_difficulty"].equals(clean["dense_difficulty"])
        assert wilder.filter(pl.Series(IS_TRAIN)).equals(clean.filter(pl.Series(IS_TRAIN)))


@pytest.mark.parametrize("labels", [no_labels(), label_frame("difficulty", FEATURES.prompt_ids[:9], TRUTH[:9])])
@pytest.mark.parametrize("score", ["auto", "proxy", "label"])
def test_without_labels_to_learn_from_it_is_the_summed_norm_and_says_so(labels: pl.DataFrame, score: str) -> None:
    found, _ = derive(labels, score=score)
    words = str(found.facts["dense_difficulty"])
    assert words.startswith("The norm of the dense state, summed over the tokens.")
    assert "label" in words
    norms = summed_norms(DENSE, PROMPTS["n_tokens"].to_numpy())
    assert rank(found.signals["dense_difficulty"][9:], norms[9:]) == pytest.approx(1)


@pytest.mark.parametrize("score", ["count", "count_per_token", "magnitude"])
def test_what_is_not_learned_in_the_version_is_not_learned_here(score: str) -> None:
    found, _ = derive(LABELS, score=score)
    norms = summed_norms(DENSE, PROMPTS["n_tokens"].to_numpy())
    assert found.signals["dense_difficulty"].to_numpy() == pytest.approx(norms)
    assert f"difficulty.score = '{score}'" in str(found.facts["dense_difficulty"])


def test_with_the_label_as_the_score_both_have_it_where_it_is_known() -> None:
    found, scores = derive(FEW, score="label")
    for name in ("dense_difficulty", "true_difficulty"):
        assert found.signals[name][:80].to_numpy() == pytest.approx(TRUTH[:80])
    assert found.signals["true_difficulty"].equals(scores["difficulty"], check_names=False), "nothing is left to add"
    assert rank(found.signals["dense_difficulty"][80:], TRUTH[80:]) > 0.9


def test_all_labels_are_the_true_difficulty() -> None:
    found, _ = derive(LABELS)
    assert found.signals["true_difficulty"].to_numpy() == pytest.approx(TRUTH)
    assert found.facts["known_fraction"] == 1.0


@pytest.mark.parametrize("score", ["auto", "magnitude", "count"])
def test_where_the_label_is_not_known_the_score_in_use_stands_in_on_its_scale(score: str) -> None:
    found, scores = derive(FEW, score=score)
    true, own = found.signals["true_difficulty"].to_numpy(), scores["difficulty"].to_numpy()
    assert true[:80] == pytest.approx(TRUTH[:80])
    assert rank(true[80:], own[80:]) == pytest.approx(1), "in the order that it has"
    assert true[80:].min() >= TRUTH[:80].min() - 1e-4
    assert true[80:].max() <= TRUTH[:80].max() + 1e-4
    assert found.facts["known_fraction"] == pytest.approx(80 / IS_TRAIN.sum())
    assert "37.0% of the training prompts" in str(found.facts["true_difficulty"])


def test_without_any_label_the_true_difficulty_is_the_one_in_use() -> None:
    found, scores = derive(no_labels())
    assert found.signals["true_difficulty"].equals(scores["difficulty"], check_names=False)
    assert found.facts["known_fraction"] == 0.0
    assert "No training prompt has label 'difficulty'" in str(found.facts["true_difficulty"])


@settings(deadline=None)
@given(st.data())
def test_a_known_label_stays_and_unknown_ones_keep_their_order_within_the_labels_range(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 30))
    scores = np.array(data.draw(st.lists(st.integers(-100, 100), min_size=n, max_size=n, unique=True)), dtype=float)
    values = np.array(data.draw(st.lists(st.integers(0, 5), min_size=n, max_size=n)), dtype=float)
    is_known, is_train = (np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n))) for _ in range(2))
    label = KnownLabel("difficulty", np.where(is_known, values, np.nan), is_train)
    found = label.over(scores, on_scale=False)
    learned_from = is_known & is_train
    if not learned_from.any():
        assert (found == scores).all()
        return
    assert (found[is_known] == values[is_known]).all()
    unknown = np.flatnonzero(~is_known)[np.argsort(scores[~is_known])]
    assert (np.diff(found[unknown]) > 0).all()
    known = values[learned_from]
    assert ((found[unknown] >= known.min() - 1e-5) & (found[unknown] <= known.max() + 1e-5)).all()
    assert (label.over(scores, on_scale=True)[unknown] == scores[unknown]).all()


def test_the_dense_state_is_not_derived_from_nothing() -> None:
    spec = spec_of(("dense_state",))
    own = assignment_frame(fit_clusters(FEATURES, spec.clusters, 0), FEATURES)
    scores = score_difficulty(FEATURES, PROMPTS, LABELS, spec.difficulty, 0).scores
    with pytest.raises(ValueError, match="needs the dense states"):
        derive_control_signals(FEATURES, PROMPTS, LABELS, own, scores, spec)
