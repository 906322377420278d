"""Dense states as rows to cluster: what standardising does to them, and that storage's blocks do not matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from saerl_assets.domain.clusters import fit_clusters
from saerl_assets.domain.dense_states import StandardStates, summed_norms
from saerl_assets.domain.predictors import WholeMatrix
from saerl_assets.domain.spec import ClusterSpec
from saerl_assets_tests.domain.feature_sets import make_prompt_ids

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from saerl_assets.domain.features import FloatMatrix


@dataclass(frozen=True)
class InBlocks(WholeMatrix):
    """A matrix that is handed out a few rows at a time."""

    size: int = 7

    def blocks(self) -> Iterator[tuple[int, FloatMatrix]]:
        for start in range(0, self.matrix.shape[0], self.size):
            yield start, self.matrix[start : start + self.size]


def states_of(values: NDArray[np.floating], size: int = 7) -> InBlocks:
    return InBlocks(sparse.csr_matrix(values.astype(np.float32)), "dense_mean", size)


def standard(values: NDArray[np.floating], size: int = 7) -> StandardStates:
    return StandardStates.of(states_of(values, size), make_prompt_ids(len(values)))


@settings(deadline=None, max_examples=40)
@given(n=st.integers(2, 40), width=st.integers(1, 6), scale=st.floats(1e-3, 1e3), offset=st.floats(-1e3, 1e3))
def test_every_dimension_has_mean_0_and_variance_1_in_every_unit(
    n: int, width: int, scale: float, offset: float
) -> None:
    values = np.random.default_rng(n).normal(size=(n, width))
    found = standard(values * scale + offset * scale).csr("max").toarray()
    assert np.allclose(found.mean(axis=0), 0, atol=1e-2)
    assert np.allclose(found.std(axis=0), 1, atol=1e-2)
    whole = (values - values.mean(axis=0)) / values.std(axis=0)
    assert np.allclose(found, whole, atol=2e-2), "whatever their unit and offset were"


def test_a_dimension_that_is_the_same_everywhere_says_nothing() -> None:
    values = np.random.default_rng(0).normal(size=(30, 4))
    values[:, 2] = 22_000.1
    values[:, 3] = 0.0
    found = standard(values).csr("max")
    assert not found[:, 2:].nnz
    assert not standard(np.full((9, 3), 5.0)).csr("max").nnz


def test_rows_and_blocks_are_those_of_the_whole() -> None:
    values = np.random.default_rng(1).normal(size=(30, 5)) + 3
    one, other = standard(values, 7), standard(values, 30)
    whole = other.csr("max").toarray()
    assert np.allclose(np.concatenate([block.toarray() for _, block in one.blocks("max")]), whole, atol=1e-5)
    assert [start for start, _ in one.blocks("max")] == [0, 7, 14, 21, 28]
    rows = np.array([2, 3, 17])
    assert np.allclose(one.csr("max", rows).toarray(), whole[rows], atol=1e-5)


def test_groups_behind_a_common_direction_and_a_rogue_dimension_are_found() -> None:
    """Where the plain cosine of hidden states sees nothing but what they share."""
    rng = np.random.default_rng(2)
    group = np.repeat(np.arange(4), 60)
    values = rng.normal(size=(4, 24))[group] + 0.3 * rng.normal(size=(240, 24)) + 4.0
    values[:, 0] = 3_000 + 1_000 * rng.normal(size=240)  # larger than all others together, and noise
    spec = ClusterSpec(k=4, weighting="none")
    places = fit_clusters(standard(values, 50), spec, 0).places
    assert adjusted_rand_score(group, places) > 0.95

    class Plain(StandardStates):
        def _standard(self, block: FloatMatrix) -> FloatMatrix:
            return block

    plain = Plain(states_of(values), make_prompt_ids(240), np.zeros(0, np.float32), np.zeros(0, np.float32))
    assert adjusted_rand_score(group, fit_clusters(plain, spec, 0).places) < 0.5


def test_nothing_at_all() -> None:
    empty = standard(np.zeros((0, 3)))
    assert fit_clusters(empty, ClusterSpec(k=3, weighting="none"), 0).places.tolist() == []


def test_the_norm_is_that_of_the_sum_over_the_tokens() -> None:
    rng = np.random.default_rng(3)
    tokens = [rng.normal(size=(n, 6)) for n in (1, 4, 9, 2, 7, 5, 3, 8)]
    means = np.stack([each.mean(axis=0) for each in tokens])
    found = summed_norms(states_of(means, 3), np.array([len(each) for each in tokens]))
    assert np.allclose(found, [np.linalg.norm(each.sum(axis=0)) for each in tokens], rtol=1e-5)
