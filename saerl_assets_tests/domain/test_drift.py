from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import braycurtis, jensenshannon

from saerl_assets.domain.clusters import Centroids, assignment_frame, fit_clusters
from saerl_assets.domain.drift import (
    MEANINGS,
    State,
    cluster_drift,
    density_shift,
    jensen_shannon,
    no_drift,
    version_drift,
)
from saerl_assets.domain.features import feature_density
from saerl_assets.domain.spec import ClusterSpec, DriftSpec
from saerl_assets_tests.domain.feature_sets import MemoryFeatureSet, feature_set, make_prompt_ids
from saerl_assets_tests.domain.table_shapes import assert_is_table
from saerl_assets_tests.domain.test_clusters import planted

SPEC = DriftSpec()


def state(clusters: dict[str, int], directions: dict[int, list[float]], density: list[int] | None = None) -> State:
    ids = np.array(sorted(directions), dtype=np.int64)
    rows = np.array([directions[cluster] for cluster in ids.tolist()], dtype=np.float32)
    return State(
        pl.DataFrame(
            {"prompt_id": list(clusters), "cluster_id": list(clusters.values())},
            schema={"prompt_id": pl.String, "cluster_id": pl.UInt32},
        ),
        Centroids(ids, rows, np.ones(rows.shape[1], dtype=np.float32), int(ids.max()) + 1),
        pl.DataFrame({"feature_id": [0, 1], "n_prompts": density or [1, 1]}),
    )


BEFORE = state({"a": 0, "b": 0, "c": 1, "d": 1, "e": 2}, {0: [1, 0], 1: [0, 1], 2: [0.6, 0.8]}, [4, 1])
AFTER = state({"a": 0, "b": 1, "c": 1, "x": 3}, {0: [0.8, 0.6], 1: [0, 1], 3: [1, 0]}, [4, 1])


def values(frame: pl.DataFrame) -> dict[str, float | None]:
    return dict(frame.select("measure", "value").iter_rows())


def test_every_cluster_of_either_version_has_its_row() -> None:
    found = cluster_drift(BEFORE, AFTER)
    assert_is_table(found, "cluster_drift")
    assert found["cluster_id"].to_list() == [0, 1, 2, 3]
    assert found["fate"].to_list() == ["kept", "kept", "gone", "new"]
    assert found["n_prompts_before"].to_list() == [2, 2, 1, 0]
    assert found["n_prompts_after"].to_list() == [1, 2, 0, 1]
    assert found["fraction_shift"].to_list() == pytest.approx([1 / 4 - 2 / 5, 1 / 2 - 2 / 5, -1 / 5, 1 / 4])
    assert found["n_common"].to_list() == [2, 1, 0, 0]
    assert found["n_moved"].to_list() == [1, 0, 0, 0]
    assert found["centroid_shift"].to_list()[:2] == pytest.approx([0.2, 0.0])
    assert found["centroid_shift"].to_list()[2:] == [None, None]


def test_every_measure_is_what_it_says() -> None:
    by_cluster = cluster_drift(BEFORE, AFTER)
    found = version_drift(BEFORE, AFTER, by_cluster, SPEC)
    assert_is_table(found, "version_drift")
    assert found["measure"].to_list() == list(MEANINGS)
    expected = {
        "moved_fraction": 1 / 3,
        "population_shift": jensenshannon([0.4, 0.4, 0.2, 0], [0.25, 0.5, 0, 0.25], base=2) ** 2,
        "centroid_shift": (1 * 0.2 + 2 * 0.0) / 3,
        "density_shift": braycurtis([4 / 5, 1 / 5], [4 / 4, 1 / 4]),
    }
    for measure, value in values(found).items():
        assert value == pytest.approx(expected[measure]), measure


def test_a_limit_makes_the_verdict() -> None:
    by_cluster = cluster_drift(BEFORE, AFTER)
    for limit, verdict in ((0.3, "drifted"), (0.4, "steady")):
        found = version_drift(BEFORE, AFTER, by_cluster, DriftSpec(max_moved_fraction=limit))
        row = found.row(0, named=True)
        assert (row["measure"], row["threshold"], row["verdict"]) == ("moved_fraction", limit, verdict)
        assert "0.333 of the prompts of both versions" in row["explanation"]


def test_a_version_like_its_parent_has_not_drifted() -> None:
    found = version_drift(BEFORE, BEFORE, cluster_drift(BEFORE, BEFORE), DriftSpec())
    assert list(values(found).values()) == pytest.approx([0.0] * 4, abs=1e-6)
    assert set(found["verdict"]) == {"steady"}


def test_nothing_in_common_is_not_measured_and_says_so() -> None:
    other = state({"x": 7, "y": 7}, {7: [1, 0]}, [2, 0])
    found = version_drift(BEFORE, other, cluster_drift(BEFORE, other), DriftSpec())
    assert values(found)["moved_fraction"] is values(found)["centroid_shift"] is None
    assert values(found)["population_shift"] == pytest.approx(1.0)
    assert "nothing in common" in found["explanation"][0]
    assert found["verdict"].to_list()[:2] == ["not_measured", "drifted"]


def test_without_a_parent_there_is_no_row_by_cluster_and_the_measures_say_why() -> None:
    by_cluster, found = no_drift("The version has no parent.", DriftSpec())
    assert_is_table(by_cluster, "cluster_drift")
    assert_is_table(found, "version_drift")
    assert by_cluster.is_empty()
    assert set(found["verdict"]) == {"not_measured"}
    assert set(found["explanation"]) == {"Not measured: The version has no parent."}


def test_the_same_features_in_other_clusters_still_have_a_density_shift() -> None:
    _, found = no_drift("Another pooling.", DriftSpec(), density=0.5)
    assert found["verdict"].to_list() == ["not_measured"] * 3 + ["drifted"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8))
def test_the_divergence_is_scipys_squared_distance(pairs: list[tuple[int, int]]) -> None:
    before, after = (np.array(side, dtype=np.float64) for side in zip(*pairs, strict=True))
    if not before.sum() or not after.sum():
        assert jensen_shannon(before, after) is None
        return
    before, after = before / before.sum(), after / after.sum()
    found = jensen_shannon(before, after)
    assert found == pytest.approx(jensenshannon(before, after, base=2) ** 2, abs=1e-9)
    assert 0 <= (found or 0.0) <= 1


def test_densities_without_prompts_or_features_are_not_compared() -> None:
    none = pl.DataFrame({"feature_id": [0], "n_prompts": [0]})
    assert density_shift(none, 0, none, 5) is None
    assert density_shift(none, 5, none, 5) is None


def of(features: MemoryFeatureSet, parent: Centroids | None = None) -> State:
    found = fit_clusters(features, ClusterSpec(k=6), 0, parent)
    density = feature_density(features, [(0, 0, features.n_features)])
    return State(assignment_frame(found, features), found.centroids, density)


def test_more_of_the_same_is_steady_and_a_new_kind_is_drift() -> None:
    matrix, groups = planted(6, 1200, seed=2)
    names = make_prompt_ids(1200)
    few = np.flatnonzero(groups < 4)
    before = of(feature_set(matrix[few[:500]], prompt_ids=[names[row] for row in few[:500]]))
    more, kinds = few[:550], np.concatenate([few[:500], np.flatnonzero(groups >= 4)])
    verdicts = []
    for rows in (more, np.sort(kinds)):
        after = of(feature_set(matrix[rows], prompt_ids=[names[row] for row in rows]), before.centroids)
        found = version_drift(before, after, cluster_drift(before, after), DriftSpec())
        verdicts.append(dict(found.select("measure", "verdict").iter_rows()))
    assert set(verdicts[0].values()) == {"steady"}
    assert verdicts[1]["population_shift"] == verdicts[1]["density_shift"] == "drifted"
