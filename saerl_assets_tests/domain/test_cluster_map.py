"""The map of the clusters: like prompts together, inside the unit square, the same one every time."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from saerl_assets.domain.cluster_map import MAX_POINTS, map_prompts
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.features import FeatureSet
from saerl_assets.domain.spec import ClusterSpec
from saerl_assets_tests.domain.feature_sets import feature_set, make_prompt_ids
from saerl_assets_tests.domain.table_shapes import assert_is_table

SPEC = ClusterSpec(pooling="max", weighting="none")


def grouped(n_groups: int, n_each: int, *, seed: int = 0) -> tuple[FeatureSet, pl.DataFrame]:
    """Prompts of groups that share no feature, and their groups as clusters."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((n_groups * n_each, 8 * n_groups), dtype=np.float32)
    group = np.arange(len(rows)) % n_groups
    for place in range(len(rows)):
        rows[place, 8 * group[place] : 8 * group[place] + 8] = rng.random(8) + 0.2
    ids = make_prompt_ids(len(rows))
    assigned = pl.DataFrame({"prompt_id": ids, "cluster_id": group})
    return feature_set(rows, prompt_ids=ids), assigned


def test_prompts_of_a_group_lie_together() -> None:
    features, assigned = grouped(5, 24)
    places, trust = map_prompts(features, assigned, SPEC, 3)
    assert_is_table(places, "cluster_map")
    assert places["prompt_id"].to_list() == sorted(assigned["prompt_id"])
    at = places.select("x", "y").to_numpy()
    distance = np.linalg.norm(at[:, None] - at[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    group = places["cluster_id"].to_numpy()
    nearest = group[distance.argsort(axis=1)[:, :5]]
    assert (nearest == group[:, None]).mean() > 0.95
    assert trust is not None
    assert trust > 0.8
    assert at.min() == 0.0
    assert at.max() == 1.0


def test_the_map_is_the_same_again() -> None:
    features, assigned = grouped(4, 10)
    first, _ = map_prompts(features, assigned, SPEC, 3)
    again, _ = map_prompts(features, assigned.reverse(), SPEC, 3)
    assert first.equals(again)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9])
def test_a_few_prompts_have_places_too(n: int) -> None:
    features, assigned = grouped(1, n)
    places, _ = map_prompts(features, assigned, SPEC, 0)
    assert places.height == n
    assert places.select(pl.col("x", "y").is_between(0.0, 1.0).all()).row(0) == (True, True)


def test_equal_prompts_lie_at_one_place_and_silent_ones_have_none() -> None:
    ids = make_prompt_ids(12)
    equal = np.ones((12, 3), dtype=np.float32)
    equal[:2] = 0.0
    assigned = pl.DataFrame({"prompt_id": ids, "cluster_id": [0] * 12})
    places, _ = map_prompts(feature_set(equal, prompt_ids=ids), assigned, SPEC, 0)
    assert places["prompt_id"].to_list() == ids[2:]
    nothing, trust = map_prompts(feature_set(np.zeros((12, 3), np.float32), prompt_ids=ids), assigned, SPEC, 0)
    assert_is_table(nothing, "cluster_map")
    assert (nothing.height, trust) == (0, None)


def test_of_many_prompts_an_even_sample_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_POINTS > 100
    monkeypatch.setattr("saerl_assets.domain.cluster_map.MAX_POINTS", 30)
    features, assigned = grouped(3, 40)
    places, _ = map_prompts(features, assigned, SPEC, 0)
    assert places.height == 30
    assert places["cluster_id"].value_counts()["count"].min() >= 4  # type: ignore[operator]


def test_what_is_no_number_is_refused() -> None:
    ids = make_prompt_ids(3)
    assigned = pl.DataFrame({"prompt_id": ids, "cluster_id": [0, 0, 0]})
    with pytest.raises(SaerlError, match="features_not_finite"):
        map_prompts(feature_set(np.array([[1.0], [np.nan], [1.0]], np.float32), prompt_ids=ids), assigned, SPEC, 0)
