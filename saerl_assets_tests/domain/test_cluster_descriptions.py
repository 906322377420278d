from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import chi2_contingency

from saerl_assets.domain.cluster_descriptions import N_EXEMPLARS, N_TOP, describe_clusters, evidence
from saerl_assets.domain.clusters import Clustering, fit_clusters
from saerl_assets.domain.spec import ClusterSpec
from saerl_assets_tests.domain.feature_sets import make_prompt_ids, planted_rows, prompt_frame
from saerl_assets_tests.domain.table_shapes import assert_is_table

if TYPE_CHECKING:
    from saerl_assets.domain.features import FloatMatrix

FILLED_LATER = ("centroids_digest", "centroids_path")
WORDS = {0: "triangle angle", 1: "apples pears", 2: "matrix determinant"}


def clustering(assignments: list[int], similarity: list[float] | None = None) -> Clustering:
    k = max(assignments) + 1
    return Clustering(
        assignments=np.array(assignments, dtype=np.int32),
        similarity=np.array(similarity or [0.5] * len(assignments)),
        centroids=np.eye(k, 6, dtype=np.float32),
        weights=np.ones(6, dtype=np.float32),
        distances=np.zeros(1),
    )


def three_groups() -> tuple[Clustering, FloatMatrix, pl.DataFrame]:
    """30 prompts in clusters of 15, 10 and 5; each has its own feature and words, all share feature 5."""
    groups = [0] * 15 + [1] * 10 + [2] * 5
    rows = np.zeros((30, 6), dtype=np.float32)
    rows[np.arange(30), groups] = 1
    rows[:, 5] = 9
    frame = prompt_frame(make_prompt_ids(30)).with_columns(
        text=pl.Series([f"Find the {WORDS[group].upper()} in 12 or x1" for group in groups]),
        topic=pl.Series(["a"] * 9 + ["b"] * 6 + ["b", "a"] * 2 + [None] * 11),
    )
    return clustering(groups), sparse.csr_matrix(rows), frame


def test_a_cluster_is_described_by_what_sets_it_apart() -> None:
    found = describe_clusters(*three_groups())
    assert_is_table(found, "clusters", without=FILLED_LATER)
    assert found["n_prompts"].to_list() == [15, 10, 5]
    assert found["prompt_fraction"].to_list() == pytest.approx([1 / 2, 1 / 3, 1 / 6])
    assert found["top_features"].to_list() == [[0], [1], [2]]
    assert found["top_words"].to_list() == [
        ["angle", "triangle"],
        ["apples", "pears"],
        ["determinant", "matrix"],
    ]


def test_the_top_topic_is_of_known_topics_and_first_in_the_alphabet_if_equal() -> None:
    found = describe_clusters(*three_groups())
    assert found["top_topic"].to_list() == ["a", "a", None]
    assert found["top_topic_fraction"].to_list() == [0.6, 0.5, None]


def test_exemplars_are_the_nearest_and_ties_go_to_the_smaller_id() -> None:
    similarity = [0.1, 0.9, 0.9, 0.2, 0.8, 0.3, 0.4, 0.7]
    frame = prompt_frame([f"p{i}" for i in range(8)])
    found = describe_clusters(
        clustering([0] * 7 + [1], similarity), sparse.csr_matrix(np.ones((8, 6), dtype=np.float32)), frame
    )
    assert found["exemplars"].to_list() == [["p1", "p2", "p4", "p6", "p5"], ["p7"]]
    assert found["mean_similarity"].to_list() == pytest.approx([3.6 / 7, 0.7])
    assert len(found["exemplars"][0]) == N_EXEMPLARS


def test_one_cluster_has_nothing_that_sets_it_apart() -> None:
    _, matrix, frame = three_groups()
    found = describe_clusters(clustering([0] * 30), matrix, frame)
    assert found["top_features"].to_list() == [[]]
    assert found["top_words"].to_list() == [[]]


def test_texts_without_words_and_prompts_without_features_are_described() -> None:
    frame = prompt_frame(make_prompt_ids(4)).with_columns(text=pl.lit("1 + 1 = ?"))
    silent = sparse.csr_matrix(np.zeros((4, 6), dtype=np.float32))
    found = describe_clusters(fit_clusters(silent, ClusterSpec(), 0), silent, frame)
    assert_is_table(found, "clusters", without=FILLED_LATER)
    assert found["n_prompts"].to_list() == [4]


def test_a_description_is_the_same_twice_and_bounded() -> None:
    matrix = sparse.csr_matrix(planted_rows(300, 60, seed=0))
    rng = np.random.default_rng(0)
    texts = [" ".join(f"word{'abcdefgh'[i]}" for i in rng.integers(0, 8, 20)) for _ in range(300)]
    frame = prompt_frame(make_prompt_ids(300)).with_columns(text=pl.Series(texts))
    found = fit_clusters(matrix, ClusterSpec(k=4), 0)
    one, other = (describe_clusters(found, matrix, frame) for _ in range(2))
    assert one.equals(other)
    assert 0 < one["top_features"].list.len().max() <= N_TOP  # type: ignore[operator]


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_evidence_is_the_g_statistic_of_the_two_by_two_table(
    n_inside: int, n_outside: int, data: st.DataObject
) -> None:
    inside = data.draw(st.integers(0, n_inside))
    outside = data.draw(st.integers(0, n_outside))
    n_total, total = n_inside + n_outside, inside + outside
    (found,) = evidence(np.array([inside]), n_inside, np.array([total]), n_total)
    if inside * n_outside <= outside * n_inside:
        assert found == 0
    else:
        table = [[inside, n_inside - inside], [outside, n_outside - outside]]
        expected = chi2_contingency(table, correction=False, lambda_="log-likelihood").statistic
        assert found == pytest.approx(expected)


def test_evidence_prefers_what_is_rarer_elsewhere() -> None:
    found = evidence(np.array([1, 1, 1]), 1, np.array([1, 101, 2000]), 2000)
    assert found[0] > found[1] > found[2]
    assert found[2] == 0
