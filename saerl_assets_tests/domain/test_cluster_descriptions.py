from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from saerl_assets.domain.cluster_descriptions import N_EXEMPLARS, N_TOP, describe_clusters, log_likelihood_ratio
from saerl_assets.domain.clusters import Centroids, Clustering, active_counts, fit_clusters
from saerl_assets.domain.spec import ClusterSpec
from saerl_assets_tests.domain.feature_sets import (
    MemoryFeatureSet,
    feature_set,
    planted_rows,
    prompt_frame,
)
from saerl_assets_tests.domain.table_shapes import assert_is_table

FILLED_LATER = ("centroids_digest", "centroids_path", "parent_digest", "start")
WORDS = {0: "triangle angle", 1: "apples pears", 2: "matrix determinant"}
TOKENS = {0: " triangle", 1: "apples", 2: " matrix", 3: "matrix ", 8: "\n", 9: "?"}


def decode(token_ids: Sequence[int]) -> list[str]:
    return [TOKENS[token] for token in token_ids]


def clustering(
    features: MemoryFeatureSet, places: list[int], similarity: list[float] | None = None, ids: list[int] | None = None
) -> Clustering:
    k = max(places) + 1
    found = np.array(places, dtype=np.int32)
    centroids = Centroids(
        ids=np.array(ids or range(k), dtype=np.int64),
        directions=np.eye(k, features.n_features, dtype=np.float32),
        weights=np.ones(features.n_features, dtype=np.float32),
        next_id=k,
    )
    return Clustering(
        centroids=centroids,
        places=found,
        similarity=np.array(similarity or [0.5] * len(places)),
        n_active=active_counts(features.csr("max"), found, k),
        distances=np.zeros(1),
    )


def prompts_of(features: MemoryFeatureSet) -> pl.DataFrame:
    tokens = pl.Series("token_ids", [[9, 9, 9, 9]] * len(features.prompt_ids), dtype=pl.List(pl.UInt32))
    return prompt_frame(features.prompt_ids).with_columns(tokens)


def three_groups() -> tuple[Clustering, MemoryFeatureSet, pl.DataFrame]:
    """30 prompts in clusters of 15, 10 and 5; each has its own feature and words, all share feature 5."""
    groups = [0] * 15 + [1] * 10 + [2] * 5
    rows = np.zeros((30, 6), dtype=np.float32)
    rows[np.arange(30), groups] = 1
    rows[:, 5] = 9
    features = feature_set(rows)
    frame = prompts_of(features).with_columns(
        text=pl.Series([f"Find the {WORDS[group].upper()} in 12 or x1" for group in groups]),
        topic=pl.Series(["a"] * 9 + ["b"] * 6 + ["b", "a"] * 2 + [None] * 11),
        token_ids=pl.Series([[9, group, 9] for group in groups], dtype=pl.List(pl.UInt32)),
    )
    return clustering(features, groups), features, frame


def test_a_cluster_is_described_by_what_sets_it_apart() -> None:
    found = describe_clusters(*three_groups(), decode)
    assert_is_table(found, "clusters", without=FILLED_LATER)
    assert found["n_prompts"].to_list() == [15, 10, 5]
    assert found["prompt_fraction"].to_list() == pytest.approx([1 / 2, 1 / 3, 1 / 6])
    assert found["top_features"].to_list() == [[0], [1], [2]]
    assert found["firing_tokens"].to_list() == [["triangle"], ["apples"], ["matrix"]]
    assert found["top_words"].to_list() == [
        ["angle", "triangle"],
        ["apples", "pears"],
        ["determinant", "matrix"],
    ]


def test_a_cluster_is_called_by_its_id() -> None:
    found, features, frame = three_groups()
    renamed = replace(found, centroids=replace(found.centroids, ids=np.array([2, 5, 11])))
    assert describe_clusters(renamed, features, frame, decode)["cluster_id"].to_list() == [2, 5, 11]


def test_tokens_are_named_by_how_often_they_fire_and_space_around_them_makes_no_other() -> None:
    found, features, frame = three_groups()
    tokens = [[9, token, 9] for token in [0] * 15 + [1] * 10 + [2, 8, 8, 3, 3]]
    frame = frame.with_columns(token_ids=pl.Series(tokens, dtype=pl.List(pl.UInt32)))
    said = describe_clusters(found, features, frame, decode)["firing_tokens"]
    assert said[2].to_list() == [r"matrix, '\n'"]


def test_the_top_topic_is_of_known_topics_and_first_in_the_alphabet_if_equal() -> None:
    found = describe_clusters(*three_groups(), decode)
    assert found["top_topic"].to_list() == ["a", "a", None]
    assert found["top_topic_fraction"].to_list() == [0.6, 0.5, None]


def test_exemplars_are_the_nearest_and_ties_go_to_the_smaller_id() -> None:
    similarity = [0.1, 0.9, 0.9, 0.2, 0.8, 0.3, 0.4, 0.7]
    features = feature_set(np.ones((8, 6)), prompt_ids=[f"p{i}" for i in range(8)])
    found = describe_clusters(clustering(features, [0] * 7 + [1], similarity), features, prompts_of(features), decode)
    assert found["exemplars"].to_list() == [["p1", "p2", "p4", "p6", "p5"], ["p7"]]
    assert found["mean_similarity"].to_list() == pytest.approx([3.6 / 7, 0.7])
    assert len(found["exemplars"][0]) == N_EXEMPLARS


def test_one_cluster_has_nothing_that_sets_it_apart() -> None:
    _, features, frame = three_groups()
    found = describe_clusters(clustering(features, [0] * 30), features, frame, decode)
    assert found["top_features"].to_list() == [[]]
    assert found["firing_tokens"].to_list() == [[]]
    assert found["top_words"].to_list() == [[]]


@pytest.mark.parametrize("n_prompts", [0, 1, 4])
def test_texts_without_words_and_prompts_without_features_are_described(n_prompts: int) -> None:
    silent = feature_set(np.zeros((n_prompts, 6)))
    frame = prompts_of(silent).with_columns(text=pl.lit("1 + 1 = ?"))
    found = describe_clusters(fit_clusters(silent, ClusterSpec(), 0), silent, frame, decode)
    assert_is_table(found, "clusters", without=FILLED_LATER)
    assert found["n_prompts"].to_list() == [n_prompts] * bool(n_prompts)


def test_features_of_other_prompts_are_refused() -> None:
    found, features, frame = three_groups()
    with pytest.raises(ValueError, match="same order"):
        describe_clusters(found, features, frame.reverse(), decode)


def test_a_description_is_the_same_twice_and_bounded() -> None:
    features = feature_set(planted_rows(300, 60, seed=0))
    rng = np.random.default_rng(0)
    texts = [" ".join(f"word{'abcdefgh'[i]}" for i in rng.integers(0, 8, 20)) for _ in range(300)]
    frame = prompts_of(features).with_columns(text=pl.Series(texts))
    found = fit_clusters(features, ClusterSpec(k=4), 0)
    one, other = (describe_clusters(found, features, frame, decode) for _ in range(2))
    assert one.equals(other)
    assert 0 < one["top_features"].list.len().max() <= N_TOP  # type: ignore[operator]
    assert one["top_features"].list.len().to_list() == one["firing_tokens"].list.len().to_list()


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_evidence_is_the_g_statistic_of_the_two_by_two_table(
    n_inside: int, n_outside: int, data: st.DataObject
) -> None:
    inside = data.draw(st.integers(0, n_inside))
    outside = data.draw(st.integers(0, n_outside))
    n_total, total = n_inside + n_outside, inside + outside
    (found,) = log_likelihood_ratio(np.array([inside]), n_inside, np.array([total]), n_total)
    if inside * n_outside <= outside * n_inside:
        assert found == 0
    else:
        table = [[inside, n_inside - inside], [outside, n_outside - outside]]
        expected = chi2_contingency(table, correction=False, lambda_="log-likelihood").statistic
        assert found == pytest.approx(expected)


def test_evidence_prefers_what_is_rarer_elsewhere() -> None:
    found = log_likelihood_ratio(np.array([1, 1, 1]), 1, np.array([1, 101, 2000]), 2000)
    assert found[0] > found[1] > found[2]
    assert found[2] == 0
