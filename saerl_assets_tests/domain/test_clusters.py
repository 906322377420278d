from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import sparse
from sklearn.metrics import normalized_mutual_info_score

from saerl_assets.domain.clusters import _mean_directions, _number_by_size, assignment_frame, choose_k, fit_clusters
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.spec import ClusterSpec
from saerl_assets.domain.threads import one_thread
from saerl_assets_tests.domain.feature_sets import make_prompt_ids, planted_rows
from saerl_assets_tests.domain.table_shapes import assert_is_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saerl_assets.domain.features import FloatMatrix

    Weighting: TypeAlias = Literal["none", "sqrt", "idf"]

ROWS = npst.arrays(
    np.float32,
    st.tuples(st.integers(1, 14), st.integers(1, 5)),
    elements=st.integers(0, 3).map(float),
)
WEIGHTINGS: list[Weighting] = ["none", "sqrt", "idf"]


def csr(rows: NDArray[np.floating]) -> FloatMatrix:
    return sparse.csr_matrix(rows, dtype=np.float32)


def planted(n_groups: int, n_rows: int, *, seed: int) -> tuple[FloatMatrix, NDArray[np.int64]]:
    """Rows that share noise, and of which each group fires ten features of its own more often."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, n_groups, n_rows)
    rows = planted_rows(n_rows, 10 * n_groups + 100, seed=seed, density=0.07)
    for group in range(n_groups):
        members = np.flatnonzero(groups == group)
        own = planted_rows(len(members), 10, seed=seed + group, density=0.9)
        rows[np.ix_(members, np.arange(10 * group, 10 * group + 10))] += own
    return csr(rows), groups


@pytest.mark.parametrize(
    ("k", "n_prompts", "expected"),
    [
        ("auto", 1, 1),
        ("auto", 2, 2),
        ("auto", 7, 2),
        ("auto", 2000, 32),
        ("auto", 10_000_000, 1000),
        (5, 3, 3),
        (5, 100, 5),
        (1, 100, 1),
    ],
)
def test_the_number_of_clusters(k: int | Literal["auto"], n_prompts: int, expected: int) -> None:
    assert choose_k(k, n_prompts) == expected


@settings(deadline=None)
@given(ROWS, st.integers(1, 20), st.sampled_from(WEIGHTINGS), st.integers(0, 3))
def test_any_rows_make_a_valid_clustering(rows: NDArray[np.float32], k: int, weighting: Weighting, seed: int) -> None:
    found = fit_clusters(csr(rows), ClusterSpec(k=k, weighting=weighting), seed)
    sizes = np.bincount(found.assignments, minlength=len(found.centroids))
    n_directions = len({tuple(np.round(row / np.linalg.norm(row), 5)) for row in rows if row.any()})
    assert len(found.assignments) == len(found.similarity) == len(rows)
    assert len(sizes) == len(found.centroids) <= max(min(k, n_directions), 1)
    assert sizes.min() >= 1
    assert (np.diff(sizes) <= 0).all()
    lengths = np.linalg.norm(found.centroids, axis=1)
    np.testing.assert_allclose(lengths, 1 if rows.any() else 0, atol=1e-6)
    silent = ~rows.any(axis=1)
    assert (found.assignments[silent] == 0).all()
    assert (found.similarity[silent] == 0).all()
    assert (found.similarity[~silent] > 0).all()
    assert (found.similarity <= 1).all()


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_each_prompt_is_with_the_centroid_that_it_is_most_similar_to(weighting: Weighting) -> None:
    matrix, _ = planted(4, 200, seed=0)
    found = fit_clusters(matrix, ClusterSpec(k=6, weighting=weighting), 0)
    rows = matrix.toarray() * found.weights
    rows = np.sqrt(rows) if weighting == "sqrt" else rows
    cosines = rows @ found.centroids.T / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(found.similarity, cosines.max(axis=1), atol=1e-5)
    chosen = cosines[np.arange(len(rows)), found.assignments]
    np.testing.assert_allclose(chosen, cosines.max(axis=1), atol=1e-5)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_planted_groups_are_found(weighting: Weighting) -> None:
    matrix, groups = planted(8, 600, seed=1)
    found = fit_clusters(matrix, ClusterSpec(k=8, weighting=weighting), 0)
    assert normalized_mutual_info_score(groups, found.assignments) > 0.9


def test_features_that_fire_everywhere_do_not_hide_the_groups_from_idf() -> None:
    matrix, groups = planted(5, 300, seed=2)
    rows = np.hstack([matrix.toarray(), 100 * np.random.default_rng(0).random((300, 3))])
    found = fit_clusters(csr(rows), ClusterSpec(k=5, weighting="idf"), 0)
    assert normalized_mutual_info_score(groups, found.assignments) > 0.9
    blind = fit_clusters(csr(rows), ClusterSpec(k=5, weighting="none"), 0)
    assert normalized_mutual_info_score(groups, blind.assignments) < 0.5


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(2, 12))
def test_the_objective_never_rises(seed: int, k: int) -> None:
    rows = planted_rows(80, 25, seed=seed, density=0.3)
    distances = fit_clusters(csr(rows), ClusterSpec(k=k), seed).distances
    assert len(distances) >= 2
    assert (np.diff(distances) <= 1e-6).all()


def test_the_order_of_rows_changes_nothing_but_the_order() -> None:
    matrix, _ = planted(6, 300, seed=3)
    order = np.random.default_rng(0).permutation(300)
    found = fit_clusters(matrix, ClusterSpec(k=9), 0)
    permuted = fit_clusters(matrix[order], ClusterSpec(k=9), 0)
    np.testing.assert_array_equal(permuted.similarity, found.similarity[order])
    together = found.assignments[order][:, None] == found.assignments[order][None]
    assert (together == (permuted.assignments[:, None] == permuted.assignments[None])).all()


def test_the_same_input_gives_the_same_bytes_on_any_number_of_threads() -> None:
    matrix, _ = planted(6, 300, seed=4)
    found = fit_clusters(matrix, ClusterSpec(), 0)
    with one_thread():
        again = fit_clusters(matrix, ClusterSpec(), 0)
    assert found.centroids.tobytes() == again.centroids.tobytes()
    assert found.assignments.tobytes() == again.assignments.tobytes()
    assert found.similarity.tobytes() == again.similarity.tobytes()


def test_another_seed_starts_elsewhere() -> None:
    rows = csr(planted_rows(100, 30, seed=0, density=0.4))
    one, other = (fit_clusters(rows, ClusterSpec(k=10), seed) for seed in (0, 1))
    assert (one.assignments != other.assignments).any()


def test_clusters_of_one_size_are_numbered_by_their_first_row() -> None:
    rows = np.array([[0, 1, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=np.float32)
    found = fit_clusters(csr(rows), ClusterSpec(k=3), 0)
    assert found.assignments.tolist() == [0, 1, 0, 1, 2]


def test_one_prompt_and_no_prompt() -> None:
    one = fit_clusters(csr(np.array([[0.0, 3.0]])), ClusterSpec(), 0)
    assert one.assignments.tolist() == [0]
    assert one.similarity.tolist() == [1]
    none = fit_clusters(csr(np.zeros((0, 4))), ClusterSpec(), 0)
    assert none.centroids.shape == (0, 4)
    assert len(none.assignments) == 0


def test_prompts_without_features_take_no_cluster_from_the_others() -> None:
    rows = np.zeros((60, 3), dtype=np.float32)
    rows[np.arange(0, 60, 5), np.arange(12) % 3] = 1
    for seed in range(5):
        found = fit_clusters(csr(rows), ClusterSpec(k=3), seed)
        assert np.bincount(found.assignments).tolist() == [52, 4, 4]


def test_a_cluster_that_has_lost_its_prompts_starts_anew_at_the_farthest_one() -> None:
    units = csr(np.array([[1, 0, 0], [1, 0, 0], [0, 0.6, 0.8], [0, 1, 0]]))
    assignments, similarity = np.array([0, 0, 0, 2], dtype=np.int32), np.array([1.0, 0.9, 0.1, 1.0])
    directions = _mean_directions(units, assignments, similarity, np.zeros((3, 3), dtype=np.float32))
    np.testing.assert_allclose(directions[1], [0, 0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(directions[0], np.array([2, 0.6, 0.8]) / 5**0.5, rtol=1e-6)


def test_an_empty_cluster_is_left_out_of_the_numbers() -> None:
    centroids = np.eye(3, dtype=np.float32)
    assignments, kept = _number_by_size(np.array([2, 0, 2], dtype=np.int32), centroids, np.full(3, fill_value=True))
    assert assignments.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(kept, centroids[[2, 0]])


def test_equal_rows_make_one_cluster_however_many_are_asked_for() -> None:
    found = fit_clusters(csr(np.ones((20, 3))), ClusterSpec(k=5), 0)
    assert found.assignments.tolist() == [0] * 20
    assert found.centroids.shape == (1, 3)


def test_the_input_is_left_as_it_was() -> None:
    matrix, _ = planted(3, 50, seed=0)
    before = matrix.data.tobytes(), matrix.indices.tobytes(), matrix.indptr.tobytes()
    fit_clusters(matrix, ClusterSpec(), 0)
    assert (matrix.data.tobytes(), matrix.indices.tobytes(), matrix.indptr.tobytes()) == before


def test_an_undefined_activation_is_refused() -> None:
    with pytest.raises(SaerlError, match="no finite numbers"):
        fit_clusters(csr(np.array([[1.0, np.nan]])), ClusterSpec(), 0)


def test_assignments_fit_their_table() -> None:
    matrix, _ = planted(3, 50, seed=0)
    names = make_prompt_ids(50)
    frame = assignment_frame(fit_clusters(matrix, ClusterSpec(), 0), names)
    assert_is_table(frame, "cluster_assignments")
    assert frame["prompt_id"].to_list() == names
