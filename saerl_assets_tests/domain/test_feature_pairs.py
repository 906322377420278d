from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from saerl_assets.domain import feature_pairs as module
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.feature_pairs import cosines, feature_pairs, unit_rows
from saerl_assets_tests.domain.feature_sets import feature_set


def planted(n_groups: int = 30, n_features: int = 40, seed: int = 0) -> np.ndarray:
    """Two rows of each group nearly parallel, a third at an angle."""
    rng = np.random.default_rng(seed)
    base = rng.random((n_groups, n_features)) * (rng.random((n_groups, n_features)) < 0.3)
    near = base * (1 + 0.05 * rng.normal(size=base.shape))
    far = base + rng.random(base.shape) * (rng.random(base.shape) < 0.2)
    rows: np.ndarray = np.abs(np.concatenate([base, near, far])).astype(np.float32)
    return rows


def brute_force(rows: np.ndarray, keys: np.ndarray, min_similarity: float) -> set[tuple[int, int]]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.where(lengths > 0, lengths, 1)
    near = np.triu(unit @ unit.T, k=1) >= min_similarity
    return {(int(one), int(other)) for one, other in np.argwhere(near) if keys[one] == keys[other]}


def find(rows: np.ndarray, keys: np.ndarray, clusters: np.ndarray | None = None) -> pl.DataFrame:
    nearness = rows.sum(axis=1).astype(np.float64)
    return feature_pairs(
        feature_set(rows),
        keys,
        np.zeros(len(rows), dtype=np.int64) if clusters is None else clusters,
        nearness,
        pooling="max",
        min_similarity=0.95,
    )


@pytest.mark.parametrize("small_crowd", [0, 16, 1000])
def test_all_near_pairs_are_found(small_crowd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SMALL_CROWD", small_crowd)
    rows = planted()
    for keys in (np.zeros(len(rows), dtype=np.int64), np.arange(len(rows)) % 30, np.arange(len(rows)) % 15):
        found = find(rows, keys)
        expected = brute_force(rows, keys, 0.95)
        assert set(found.select("first", "second").iter_rows()) == expected
        assert expected
        measured = cosines(feature_set(rows), found["first"].to_numpy(), found["second"].to_numpy(), pooling="max")
        assert measured == pytest.approx(found["similarity"].to_numpy(), abs=1e-5)


def test_many_are_compared_within_their_cluster_and_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_COMPARED", 20)
    monkeypatch.setattr(module, "GATHERED_ROWS", 40)
    rows = planted(100)
    keys, clusters = np.zeros(len(rows), dtype=np.int64), np.arange(len(rows)) % 100 % 3
    expected = {pair for pair in brute_force(rows, keys, 0.95) if clusters[pair[0]] == clusters[pair[1]]}
    found = set(find(rows, keys, clusters).select("first", "second").iter_rows())
    assert found <= expected
    assert len(found) >= 0.5 * len(expected)
    crowds = module._crowds(keys, clusters, rows.sum(axis=1).astype(np.float64))
    assert max(len(crowd) for crowd in crowds) <= 20
    assert set(np.concatenate(crowds).tolist()) == set(range(len(rows)))


def test_a_thousand_equal_prompts_give_few_pairs() -> None:
    rows = np.ones((1000, 3), dtype=np.float32)
    found = find(rows, np.zeros(1000, dtype=np.int64))
    assert found.height <= 2 * 1000 * module.N_NEIGHBOURS
    assert found["similarity"].to_list() == pytest.approx([1.0] * found.height, abs=1e-6)


def test_prompts_without_features_are_near_to_none() -> None:
    rows = np.zeros((4, 5), dtype=np.float32)
    rows[0, 1] = 1.0
    assert find(rows, np.zeros(4, dtype=np.int64)).is_empty()
    assert cosines(feature_set(rows), np.array([0]), np.array([1]), pooling="max").tolist() == [0.0]


def test_one_prompt_and_none() -> None:
    assert find(np.ones((1, 3), dtype=np.float32), np.zeros(1, dtype=np.int64)).is_empty()
    assert find(np.ones((3, 3), dtype=np.float32), np.arange(3)).is_empty()


def test_features_that_are_no_numbers_are_refused() -> None:
    rows = np.ones((3, 3), dtype=np.float32)
    rows[2, 2] = np.inf
    with pytest.raises(SaerlError) as caught:
        find(rows, np.zeros(3, dtype=np.int64))
    assert caught.value.code == "features_not_finite"


def test_unit_rows_have_length_one() -> None:
    matrix = unit_rows(feature_set(planted()).csr("max"))
    assert np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel() == pytest.approx(1.0, abs=1e-5)
