from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import sparse
from sklearn.metrics import normalized_mutual_info_score

from saerl_assets.domain import clusters
from saerl_assets.domain.clusters import MAX_AUTO, Centroids, Clustering, assignment_frame, candidates, fit_clusters
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.features import ENTRY_COLUMNS, EntryColumn, FeatureRows, pool
from saerl_assets.domain.folds import hash_fractions
from saerl_assets.domain.spec import ClusterSpec, Pooling, Weighting
from saerl_assets.domain.threads import one_thread
from saerl_assets_tests.domain.feature_sets import feature_set, make_prompt_ids, planted_rows
from saerl_assets_tests.domain.table_shapes import assert_is_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saerl_assets.domain.features import FloatMatrix

ROWS = npst.arrays(
    np.float32,
    st.tuples(st.integers(1, 14), st.integers(1, 5)),
    elements=st.integers(0, 3).map(float),
)
WEIGHTINGS: list[Weighting] = ["none", "sqrt", "idf", "sqrt_idf"]


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


def fit(
    rows: NDArray[np.floating] | FloatMatrix, spec: ClusterSpec, seed: int = 0, parent: Centroids | None = None
) -> Clustering:
    return fit_clusters(feature_set(rows), spec, seed, parent)


def agreement(one: NDArray[np.integer], other: NDArray[np.integer]) -> float:
    return float(normalized_mutual_info_score(one, other))


# ---------------------------------------------------------------- a fresh start


@pytest.mark.parametrize(
    ("k", "n_prompts", "n_inherited", "expected"),
    [
        ("auto", 1, 0, [1]),
        ("auto", 2, 0, [2]),
        ("auto", 8, 0, [2, 3, 4]),
        ("auto", 2000, 0, [8, 11, 16, 22, 32, 45, 63]),
        ("auto", 10_000_000, 0, [MAX_AUTO]),
        ("auto", 2000, 20, [20]),
        ("auto", 10_000_000, 400, [400]),
        ("auto", 10, 40, [10]),
        (5, 3, 0, [3]),
        (5, 100, 0, [5]),
        (5, 100, 9, [5]),
        (1, 100, 0, [1]),
        (3, 0, 0, [1]),
    ],
)
def test_the_numbers_of_clusters_that_come_into_question(
    k: int | Literal["auto"], n_prompts: int, n_inherited: int, expected: list[int]
) -> None:
    assert candidates(k, n_prompts, n_inherited) == expected


@pytest.mark.parametrize("n_groups", [6, 9, 17])
def test_auto_finds_about_as_many_clusters_as_there_are_groups(n_groups: int) -> None:
    matrix, groups = planted(n_groups, 600, seed=1)
    found = fit(matrix, ClusterSpec())
    assert len(found.centroids.ids) in range(n_groups - 2, n_groups + 3)
    assert agreement(groups, found.places) > 0.9


@pytest.mark.parametrize("seed", range(1, 5))
def test_a_child_gets_another_cluster_only_for_another_kind_of_prompt(seed: int) -> None:
    matrix, groups = planted(7, 700, seed=seed)
    few = np.flatnonzero(groups < 6)
    parent = fit(matrix[few[:-60]], ClusterSpec(k=6))
    same = fit(matrix[few], ClusterSpec(), 0, parent.centroids)
    more = fit(matrix, ClusterSpec(), 0, parent.centroids)
    assert same.centroids.ids.tolist() == [0, 1, 2, 3, 4, 5]
    assert more.centroids.ids.tolist() == [0, 1, 2, 3, 4, 5, 6]
    found = more.centroids.ids[more.places]
    assert ((found == 6) == (groups == 6)).mean() > 0.95
    assert (found[few] == same.centroids.ids[same.places]).mean() > 0.95, "no cluster takes over another's id"


@settings(deadline=None)
@given(ROWS, st.integers(1, 20), st.sampled_from(WEIGHTINGS), st.integers(1, 4), st.integers(0, 3))
def test_any_rows_make_a_valid_clustering(
    rows: NDArray[np.float32], k: int, weighting: Weighting, min_prompts: int, seed: int
) -> None:
    found = fit(rows, ClusterSpec(k=k, weighting=weighting, min_prompts=min_prompts), seed)
    sizes = np.bincount(found.places, minlength=len(found.centroids.ids))
    n_directions = len({tuple(np.round(row / np.linalg.norm(row), 5)) for row in rows if row.any()})
    assert len(found.places) == len(found.similarity) == len(rows)
    assert len(sizes) == len(found.centroids.directions) <= max(min(k, n_directions), 1)
    assert len(sizes) == 1 or sizes.min() >= min_prompts
    assert (np.diff(sizes) <= 0).all()
    assert found.centroids.ids.tolist() == list(range(len(sizes)))
    assert found.centroids.next_id == len(sizes)
    lengths = np.linalg.norm(found.centroids.directions, axis=1)
    np.testing.assert_allclose(lengths, 1 if rows.any() else 0, atol=1e-6)
    silent = ~rows.any(axis=1)
    assert (found.places[silent] == 0).all()
    assert (found.similarity[silent] == 0).all()
    assert (found.similarity[~silent] >= 0).all()
    assert (found.similarity <= 1).all()
    members = np.zeros((len(sizes), len(rows)), dtype=np.int64)
    members[found.places, np.arange(len(rows))] = 1
    np.testing.assert_array_equal(found.n_active, members @ (rows > 0))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_each_prompt_is_with_the_centroid_that_it_is_most_similar_to(weighting: Weighting) -> None:
    matrix, _ = planted(4, 200, seed=0)
    found = fit(matrix, ClusterSpec(k=6, pooling="max", weighting=weighting))
    rows = np.sqrt(matrix.toarray()) if weighting.startswith("sqrt") else matrix.toarray()
    rows = rows * found.centroids.weights
    cosines = rows @ found.centroids.directions.T / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(found.similarity, cosines.max(axis=1), atol=1e-5)
    chosen = cosines[np.arange(len(rows)), found.places]
    np.testing.assert_allclose(chosen, cosines.max(axis=1), atol=1e-5)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("seed", range(3))
def test_planted_groups_are_found(weighting: Weighting, seed: int) -> None:
    matrix, groups = planted(8, 600, seed=1)
    assert agreement(groups, fit(matrix, ClusterSpec(k=8, pooling="max", weighting=weighting), seed).places) > 0.95


def test_features_that_fire_everywhere_do_not_hide_the_groups_from_idf() -> None:
    matrix, groups = planted(5, 300, seed=2)
    rows = np.hstack([matrix.toarray(), 100 * np.random.default_rng(0).random((300, 3))])
    assert agreement(groups, fit(rows, ClusterSpec(k=5, pooling="max", weighting="idf")).places) > 0.9
    assert agreement(groups, fit(rows, ClusterSpec(k=5, pooling="max", weighting="none")).places) < 0.5


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(2, 12))
def test_the_objective_never_rises(seed: int, k: int) -> None:
    rows = planted_rows(80, 25, seed=seed, density=0.3)
    distances = fit(rows, ClusterSpec(k=k), seed).distances
    assert len(distances) >= 2
    assert (np.diff(distances) <= 1e-6).all()


def test_the_size_of_blocks_changes_nothing() -> None:
    matrix, _ = planted(6, 300, seed=3)
    found, again = (fit_clusters(feature_set(matrix, block_size=size), ClusterSpec(k=9), 0) for size in (7, 300))
    assert found.places.tobytes() == again.places.tobytes()
    assert found.similarity.tobytes() == again.similarity.tobytes()
    assert found.n_active.tobytes() == again.n_active.tobytes()


def test_the_same_input_gives_the_same_bytes_on_any_number_of_threads() -> None:
    matrix, _ = planted(6, 300, seed=4)
    found = fit(matrix, ClusterSpec())
    with one_thread():
        again = fit(matrix, ClusterSpec())
    assert found.centroids.directions.tobytes() == again.centroids.directions.tobytes()
    assert found.places.tobytes() == again.places.tobytes()
    assert found.similarity.tobytes() == again.similarity.tobytes()


def test_another_seed_starts_elsewhere() -> None:
    rows = planted_rows(100, 30, seed=0, density=0.4)
    one, other = (fit(rows, ClusterSpec(k=10), seed) for seed in (0, 1))
    assert (one.places != other.places).any()


def test_clusters_of_one_size_are_numbered_by_their_first_row() -> None:
    rows = np.array([[0, 1, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=np.float32)
    found = fit(rows, ClusterSpec(k=3, min_prompts=1))
    assert found.places.tolist() == [0, 1, 0, 1, 2]


# ---------------------------------------------------------------- few prompts, silent prompts, tiny clusters


def test_one_prompt_and_no_prompt() -> None:
    one = fit(np.array([[0.0, 3.0]]), ClusterSpec())
    assert one.places.tolist() == [0]
    assert one.similarity.tolist() == [1]
    none = fit(np.zeros((0, 4)), ClusterSpec())
    assert none.centroids.directions.shape == (0, 4)
    assert len(none.places) == 0


def test_prompts_that_activate_nothing_make_one_cluster() -> None:
    silent = fit(np.zeros((9, 4)), ClusterSpec(k=3))
    assert silent.places.tolist() == [0] * 9
    assert not silent.centroids.directions.any()
    assert silent.centroids.ids.tolist() == [0]


def test_prompts_without_features_take_no_cluster_from_the_others() -> None:
    rows = np.zeros((60, 3), dtype=np.float32)
    rows[np.arange(0, 60, 5), np.arange(12) % 3] = 1
    for seed in range(5):
        assert np.bincount(fit(rows, ClusterSpec(k=3), seed).places).tolist() == [52, 4, 4]


def test_more_clusters_than_prompts_are_cut_to_what_differs() -> None:
    rows = np.eye(4, dtype=np.float32)
    assert len(fit(rows, ClusterSpec(k=50, min_prompts=1)).centroids.ids) == 4
    assert len(fit(rows, ClusterSpec(k=50)).centroids.ids) == 1, "each is too small to stand alone"


def test_equal_rows_make_one_cluster_however_many_are_asked_for() -> None:
    found = fit(np.ones((20, 3)), ClusterSpec(k=5))
    assert found.places.tolist() == [0] * 20
    assert found.centroids.directions.shape == (1, 3)


def test_a_tiny_cluster_is_dissolved_into_the_nearest_of_the_others() -> None:
    rows = np.array([[1, 0, 0]] * 6 + [[0, 1, 0]] * 5 + [[0, 0.6, 0.8]], dtype=np.float32)
    kept = fit(rows, ClusterSpec(k=3, pooling="max", weighting="none", min_prompts=1))
    assert kept.places.tolist() == [0] * 6 + [1] * 5 + [2]
    dissolved = fit(rows, ClusterSpec(k=3, pooling="max", weighting="none", min_prompts=2))
    assert dissolved.places.tolist() == [0] * 6 + [1] * 6
    assert dissolved.similarity[-1] == pytest.approx(0.6)
    assert dissolved.n_active.tolist() == [[6, 0, 0], [0, 6, 1]]


def test_the_input_is_left_as_it_was() -> None:
    features = feature_set(planted(3, 50, seed=0)[0])
    before = features.block.maximum.tobytes(), features.block.feature_ids.tobytes()
    fit_clusters(features, ClusterSpec(), 0)
    assert (features.block.maximum.tobytes(), features.block.feature_ids.tobytes()) == before


def test_an_undefined_activation_is_refused() -> None:
    with pytest.raises(SaerlError, match="no finite numbers"):
        fit(np.array([[1.0, np.nan]]), ClusterSpec(pooling="max"))


def test_an_undefined_activation_of_a_prompt_that_is_not_fitted_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "MAX_FIT_ROWS", 10)
    rows = planted_rows(60, 8, seed=0) + 0.1
    fractions = hash_fractions(make_prompt_ids(60), seed=0, purpose="clusters")
    rows[np.argmax(fractions), 3] = np.inf
    with pytest.raises(SaerlError, match=f"the first in row {np.argmax(fractions)} "):
        fit(rows, ClusterSpec(k=3, pooling="max"))


def test_assignments_fit_their_table() -> None:
    features = feature_set(planted(3, 50, seed=0)[0])
    frame = assignment_frame(fit_clusters(features, ClusterSpec(), 0), features)
    assert_is_table(frame, "cluster_assignments")
    assert frame["prompt_id"].to_list() == features.prompt_ids


# ---------------------------------------------------------------- continuing a parent


def test_clusters_keep_their_ids_when_prompts_are_added() -> None:
    matrix, groups = planted(8, 600, seed=1)
    names = make_prompt_ids(600)
    before = feature_set(matrix[:560], prompt_ids=names[:560])
    parent = fit_clusters(before, ClusterSpec(k=8), 0)
    child = fit(matrix, ClusterSpec(k=8), 5, parent.centroids)
    assert child.centroids.ids.tolist() == parent.centroids.ids.tolist()
    assert (child.centroids.weights == parent.centroids.weights).all()
    moved = child.centroids.ids[child.places][:560] != parent.centroids.ids[parent.places]
    assert moved.mean() < 0.02
    assert agreement(groups, child.places) > 0.95


def test_a_new_kind_of_prompt_gets_an_id_that_was_never_used() -> None:
    matrix, groups = planted(6, 600, seed=2)
    known = groups < 5
    parent = fit(matrix[known], ClusterSpec(k=5))
    child = fit(matrix, ClusterSpec(k=6), 0, parent.centroids)
    assert child.centroids.ids.tolist() == [0, 1, 2, 3, 4, 5]
    assert child.centroids.next_id == 6
    new = child.centroids.ids[child.places] == 5
    assert (new == ~known).mean() > 0.95


def test_a_kind_of_prompt_that_is_gone_leaves_its_id_unused_for_ever() -> None:
    matrix, groups = planted(6, 600, seed=2)
    parent = fit(matrix, ClusterSpec(k=6))
    largest = int(np.bincount(groups[parent.places == 0]).argmax())
    without = matrix[np.flatnonzero(groups != largest)]
    child = fit(without, ClusterSpec(k=6), 0, parent.centroids)
    gone = sorted(set(range(6)) - set(child.centroids.ids.tolist()))
    grandchild = fit(without, ClusterSpec(k=8, min_prompts=1), 0, child.centroids)
    assert gone == [0], "the others are as before"
    assert child.centroids.next_id == 6
    assert not set(gone) & set(grandchild.centroids.ids.tolist())
    assert set(child.centroids.ids.tolist()) <= set(grandchild.centroids.ids.tolist())
    assert max(grandchild.centroids.ids.tolist()) >= 6


def test_fewer_clusters_keep_those_with_the_most_prompts() -> None:
    rows = np.repeat(np.eye(4, dtype=np.float32), [9, 7, 5, 3], axis=0)
    parent = fit(rows, ClusterSpec(k=4))
    child = fit(rows, ClusterSpec(k=2), 0, parent.centroids)
    assert child.centroids.ids.tolist() == [0, 1]
    assert child.centroids.next_id == 4


def test_ids_do_not_follow_the_sizes_of_a_child() -> None:
    rows = np.repeat(np.eye(3, dtype=np.float32), [9, 6, 3], axis=0)
    parent = fit(rows, ClusterSpec(k=3))
    turned = np.repeat(np.eye(3, dtype=np.float32), [3, 6, 30], axis=0)
    child = fit(turned, ClusterSpec(k=3), 0, parent.centroids)
    assert np.bincount(child.centroids.ids[child.places]).tolist() == [3, 6, 30]


def test_a_parent_without_features_is_like_none() -> None:
    silent = fit(np.zeros((9, 4)), ClusterSpec(k=3))
    child = fit(np.eye(4).repeat(3, axis=0), ClusterSpec(k=4), 0, silent.centroids)
    assert child.centroids.ids.tolist() == [0, 1, 2, 3]


def test_silent_prompts_of_a_child_go_to_its_largest_cluster() -> None:
    rows = np.repeat(np.eye(2, dtype=np.float32), [5, 4], axis=0)
    parent = fit(rows, ClusterSpec(k=2))
    grown = np.vstack([np.repeat(np.eye(2, dtype=np.float32), [2, 8], axis=0), np.zeros((3, 2))])
    child = fit(grown, ClusterSpec(k=2), 0, parent.centroids)
    assert np.bincount(child.centroids.ids[child.places]).tolist() == [2, 11]


# ---------------------------------------------------------------- size


@dataclass(frozen=True)
class EndlessFeatures:
    """Rows made block by block, which are never in memory together; `held` are the most that were asked for at once."""

    n_prompts: int
    n_features: int
    held: list[int]
    width: int = 40
    block_size: int = 20_000

    @property
    def prompt_ids(self) -> list[str]:
        return [f"{row:032x}" for row in range(self.n_prompts)]

    def _block(self, rows: NDArray[np.int64]) -> FeatureRows:
        self.held.append(len(rows))
        group = rows % 8
        ids = (group[:, None] * 100 + (rows[:, None] * 7 + np.arange(self.width) * 13) % 97) % self.n_features
        ids = np.sort(ids, axis=1).astype(np.int32).ravel()
        ones = np.ones(len(ids), dtype=np.float32)
        counts = np.ones(len(ids), dtype=np.int32)
        bounds = np.arange(len(rows) + 1) * self.width
        return FeatureRows([""] * len(rows), np.full(len(rows), 9), bounds, ids, ones, ones, ones, counts, counts)

    def csr(self, pooling: Pooling, rows: NDArray[np.int64] | None = None) -> FloatMatrix:
        return pool(self._block(np.arange(self.n_prompts) if rows is None else rows), pooling, self.n_features)

    def blocks(self, pooling: Pooling) -> Iterator[tuple[int, FloatMatrix]]:
        for start in range(0, self.n_prompts, self.block_size):
            rows = np.arange(start, min(start + self.block_size, self.n_prompts))
            yield start, pool(self._block(rows), pooling, self.n_features)

    def activations(self, columns: Sequence[EntryColumn] = ENTRY_COLUMNS) -> Iterator[FeatureRows]:
        raise NotImplementedError


def test_rows_are_never_held_all_at_once() -> None:
    features = EndlessFeatures(200_000, 1024, [])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = fit_clusters(features, ClusterSpec(k=8), 0)
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert max(features.held) <= features.block_size
    assert grown_mb < 150, "the rows alone would take 64 MB as values and indices, and several times that in a fit"
    assert agreement(np.arange(200_000) % 8, found.places) > 0.9
