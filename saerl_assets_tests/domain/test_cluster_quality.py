from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import silhouette_score

from saerl_assets.domain.cluster_quality import MEASURES, measure_clusters
from saerl_assets.domain.clusters import fit_clusters
from saerl_assets.domain.spec import ClusterSpec
from saerl_assets_tests.domain.feature_sets import feature_set, planted_rows
from saerl_assets_tests.domain.table_shapes import assert_is_table
from saerl_assets_tests.domain.test_clusters import planted

PLAIN = ClusterSpec(k=4, pooling="max", weighting="none")


def measured(rows: np.ndarray, spec: ClusterSpec = PLAIN) -> tuple[pl.DataFrame, dict[str, float | None]]:
    features = feature_set(rows)
    frame = measure_clusters(fit_clusters(features, spec, 0), features, spec, 0)
    return frame, dict(frame.select("measure", "value").iter_rows())


def test_planted_groups_are_stable_and_apart_and_noise_is_not() -> None:
    frame, good = measured(planted(8, 600, seed=1)[0].toarray(), ClusterSpec(k=8))
    _, noise = measured(planted_rows(600, 100, seed=0, density=0.3), ClusterSpec(k=8))
    assert_is_table(frame, "cluster_quality")
    assert frame["measure"].to_list() == [measure.name for measure in MEASURES]
    assert set(frame["verdict"]) == {"good"}
    assert (good["stability"] or 0) > 0.8
    assert (noise["stability"] or 0) < 0.3
    assert (good["silhouette"] or 0) > 0.15 > (noise["silhouette"] or 0)


def test_the_silhouette_is_that_of_scikit_learn() -> None:
    matrix, _ = planted(4, 200, seed=0)
    features = feature_set(matrix)
    found = fit_clusters(features, PLAIN, 0)
    frame = measure_clusters(found, features, PLAIN, 0)
    expected = silhouette_score(matrix.toarray(), found.places, metric="cosine")
    assert frame.row(by_predicate=pl.col("measure") == "silhouette", named=True)["value"] == pytest.approx(expected)


def test_sizes_are_measured_as_they_are_defined() -> None:
    rows = np.repeat(np.eye(3, dtype=np.float32), [90, 8, 2], axis=0)
    frame, values = measured(rows)
    shares = np.array([0.9, 0.08, 0.02])
    assert values["balance"] == pytest.approx(-(shares * np.log(shares)).sum() / np.log(3))
    assert values["largest_fraction"] == pytest.approx(0.9)
    assert values["tiny_fraction"] == pytest.approx(1 / 3)
    verdicts = dict(frame.select("measure", "verdict").iter_rows())
    assert {name for name, verdict in verdicts.items() if verdict == "watch"} == {
        "balance",
        "largest_fraction",
        "tiny_fraction",
    }


@pytest.mark.parametrize("rows", [np.zeros((0, 3)), np.zeros((5, 3)), np.ones((1, 3)), np.ones((5, 3))])
def test_with_one_cluster_or_none_there_is_nothing_to_compare(rows: np.ndarray) -> None:
    frame, values = measured(rows)
    assert_is_table(frame, "cluster_quality")
    assert values["stability"] is values["silhouette"] is values["balance"] is None
    assert "two clusters or more" in frame["explanation"][0]
    assert frame["verdict"][0] == "not_measured"


def test_it_is_the_same_twice() -> None:
    rows = planted_rows(150, 40, seed=0)
    assert measured(rows)[0].equals(measured(rows)[0])
