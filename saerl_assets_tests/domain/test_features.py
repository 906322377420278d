from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.features import (
    N_TOP_PROMPTS,
    FeatureRows,
    feature_density,
    finite_csr,
    pool,
    prompt_activity,
    require_aligned,
)
from saerl_assets.domain.spec import Pooling
from saerl_assets_tests.domain.feature_sets import feature_set, make_prompt_ids, planted_rows, prompt_frame
from saerl_assets_tests.domain.table_shapes import assert_is_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALL_INTEGERS = npst.arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.integers(1, 6)),
    elements=st.integers(0, 3).map(float),
)


def two_prompts() -> FeatureRows:
    """Prompt a: feature 1 on 2 of 4 tokens, feature 3 on one. Prompt b: feature 0 on one of 8 tokens."""
    return FeatureRows(
        prompt_ids=["a", "b"],
        n_tokens=np.array([4, 8]),
        indptr=np.array([0, 2, 3]),
        feature_ids=np.array([1, 3, 0], dtype=np.int32),
        maximum=np.array([5.0, 2.0, 4.0], dtype=np.float32),
        total=np.array([6.0, 2.0, 4.0], dtype=np.float32),
        last=np.array([0.0, 2.0, 4.0], dtype=np.float32),
        n_active=np.array([2, 1, 1], dtype=np.int32),
        argmax_token=np.array([0, 3, 7], dtype=np.int32),
    )


def test_pooling_takes_maximum_mean_last_fraction_or_presence() -> None:
    rows = two_prompts()
    assert pool(rows, "max", 4).toarray().tolist() == [[0, 5, 0, 2], [4, 0, 0, 0]]
    assert pool(rows, "mean", 4).toarray().tolist() == [[0, 1.5, 0, 0.5], [0.5, 0, 0, 0]]
    assert pool(rows, "last", 4).toarray().tolist() == [[0, 0, 0, 2], [4, 0, 0, 0]]
    assert pool(rows, "last", 4).nnz == 2
    assert pool(rows, "sqrt_mean", 4).power(2).toarray() == pytest.approx(pool(rows, "mean", 4).toarray(), rel=1e-6)
    assert pool(rows, "fraction", 4).toarray().tolist() == [[0, 0.5, 0, 0.25], [0.125, 0, 0, 0]]
    assert pool(rows, "binary", 4).toarray().tolist() == [[0, 1, 0, 1], [1, 0, 0, 0]]


@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_pooled_matrices_have_the_promised_types(pooling: Pooling) -> None:
    matrix = pool(two_prompts(), pooling, 4)
    assert matrix.dtype == np.float32
    assert matrix.indices.dtype == np.int32
    assert matrix.has_sorted_indices


def test_a_prompt_without_tokens_pools_to_zero() -> None:
    rows = FeatureRows(
        prompt_ids=["a"],
        n_tokens=np.zeros(1, dtype=np.int64),
        indptr=np.zeros(2, dtype=np.int64),
        feature_ids=np.zeros(0, dtype=np.int32),
        maximum=np.zeros(0, dtype=np.float32),
        total=np.zeros(0, dtype=np.float32),
        last=np.zeros(0, dtype=np.float32),
        n_active=np.zeros(0, dtype=np.int32),
        argmax_token=np.zeros(0, dtype=np.int32),
    )
    assert pool(rows, "mean", 3).toarray().tolist() == [[0, 0, 0]]


@given(SMALL_INTEGERS)
def test_activity_counts_and_sums_each_prompt(maximum: NDArray[np.float32]) -> None:
    features = feature_set(maximum, block_size=3)
    activity = prompt_activity(features)
    dense = features.csr("max").toarray()
    assert activity.n_active.tolist() == (dense > 0).sum(axis=1).tolist()
    assert activity.per_token.tolist() == ((dense > 0).sum(axis=1) * 2 / 4).tolist(), "each on two of four tokens"
    assert activity.magnitude.tolist() == (dense * 1.5).sum(axis=1).tolist()


@given(SMALL_INTEGERS, st.integers(1, 13))
def test_density_agrees_with_the_dense_matrix(maximum: NDArray[np.float32], block_size: int) -> None:
    features = feature_set(maximum, block_size=block_size)
    n_features = features.n_features
    density = feature_density(features, [(7, 0, n_features)])
    assert_is_table(density, "feature_density")
    dense = features.csr("max").toarray()
    for row in density.iter_rows(named=True):
        column = dense[:, row["feature_id"]]
        n_prompts = int((column > 0).sum())
        assert (row["n_prompts"], row["n_tokens"]) == (n_prompts, 2 * n_prompts)
        assert row["max_activation"] == column.max()
        assert row["mean_activation"] == pytest.approx(column.sum() * 1.5 / max(2 * n_prompts, 1))
        strongest = sorted(np.flatnonzero(column), key=lambda i: (-column[i], i))[:N_TOP_PROMPTS]
        assert row["top_prompts"] == [features.prompt_ids[i] for i in strongest]


def test_density_has_the_same_bits_for_any_block_size() -> None:
    maximum = planted_rows(60, 20, seed=1)
    frames = [feature_density(feature_set(maximum, block_size=size), [(0, 0, 20)]) for size in (1, 7, 60)]
    assert frames[0].equals(frames[1])
    assert frames[0].equals(frames[2])


def test_density_numbers_features_by_layer_and_keeps_dead_ones() -> None:
    features = feature_set(np.array([[1.0, 0.0, 0.0, 2.0, 0.0]], dtype=np.float32))
    density = feature_density(features, [(3, 0, 2), (9, 2, 3)])
    assert density["layer"].to_list() == [3, 3, 9, 9, 9]
    assert density["latent"].to_list() == [0, 1, 0, 1, 2]
    assert density["n_prompts"].to_list() == [1, 0, 0, 1, 0]
    assert density["top_prompts"].list.len().to_list() == [1, 0, 0, 1, 0]


@pytest.mark.parametrize("layer_of", [[], [(0, 0, 4)], [(0, 0, 2), (1, 1, 3)]])
def test_density_refuses_layers_that_do_not_cover_the_features(layer_of: list[tuple[int, int, int]]) -> None:
    with pytest.raises(ValueError, match="do not cover 5 features"):
        feature_density(feature_set(np.ones((1, 5))), layer_of)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_activation_that_is_no_number_is_named(value: float) -> None:
    maximum = np.ones((3, 2), dtype=np.float32)
    maximum[1, 1] = value
    features = feature_set(maximum, prompt_ids=["a", "b", "c"])
    with pytest.raises(SaerlError, match="row 1 of the prompts") as caught:
        finite_csr(features, "max")
    assert caught.value.code == "features_not_finite"


def test_features_of_other_prompts_are_refused() -> None:
    features = feature_set(np.ones((3, 2)))
    require_aligned(features, prompt_frame(features.prompt_ids))
    with pytest.raises(ValueError, match="same order"):
        require_aligned(features, prompt_frame(features.prompt_ids[::-1]))
    with pytest.raises(ValueError, match="same order"):
        require_aligned(features, prompt_frame(make_prompt_ids(4)))
