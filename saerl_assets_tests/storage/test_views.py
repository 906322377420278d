"""Views that a person looks at over versions, on rows small enough to be counted by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from saerl_assets.storage.home import Home
from saerl_assets.storage.warehouse import Warehouse

ROWS = """
INSERT INTO versions (dataset_version, description, parent, spec, spec_digest, resolved, registered_at) VALUES
  ('a-v1', '', NULL, '{}', 'd', '{}', TIMESTAMP '2026-01-01'),
  ('a-v2', '', 'a-v1', '{}', 'd', '{}', TIMESTAMP '2026-02-01'),
  ('b-v1', '', 'a-v1', '{}', 'd', '{}', TIMESTAMP '2026-03-01');
INSERT INTO sae_weights BY NAME
  SELECT version AS dataset_version, layer, encoder AS encoder_id, 'r' AS reading_id, 0 AS feature_offset,
    4 AS n_latents, 8 AS d_in, 'topk' AS architecture, 'train' AS "source", digest, 'p' AS path, 'm' AS reader_digest,
    1 AS sink_threshold, '{}' AS training
  FROM (VALUES ('a-v1', 1, 'e', 'same'), ('a-v2', 1, 'e', 'same'), ('b-v1', 1, 'f', 'other'))
    AS t(version, layer, encoder, digest);
"""
DENSITY = """
INSERT INTO feature_density BY NAME
  SELECT ? AS dataset_version, unnest(range(4)) AS feature_id, 1 AS layer, unnest(range(4)) AS latent,
    unnest(?::UBIGINT[]) AS n_prompts, 1 AS n_tokens, 0 AS mean_activation, 0 AS max_activation, [] AS top_prompts
"""
CLUSTERS = """
INSERT INTO clusters BY NAME
  SELECT ? AS dataset_version, unnest(range(len(?))) AS cluster_id, unnest(?) AS n_prompts,
    unnest(?) AS prompt_fraction, 0.5 AS mean_similarity, [] AS top_features, [] AS firing_tokens, [] AS top_words,
    [] AS exemplars, 'c' AS centroids_digest, 'p' AS centroids_path, 'fresh' AS "start"
"""
PROBE = """
INSERT INTO quality_probe BY NAME
  SELECT ? AS dataset_version, 'ridge' AS probe, ? AS "rows", 'sae_max' AS predictor, 10 AS n_rows,
    10 AS n_observations, 0.5 AS base_rate, ?::DOUBLE AS auroc, 0.1 AS brier, 'as measured' AS explanation
"""
DRIFT = "INSERT INTO version_drift VALUES (?, 'moved_fraction', ?, ?, 'steady', 'words')"
PROMPTS = """
INSERT INTO prompts BY NAME
  SELECT ? AS dataset_version, 'p' || n AS prompt_id, n AS position, 't' || n AS text_id, * EXCLUDE (n)
  FROM (SELECT unnest(range(?)) AS n), (SELECT {constants})
"""


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    made = Warehouse(Home(tmp_path / "home").create())
    with made.writing("test") as connection:
        connection.execute(ROWS)
    return made


def add_prompts(warehouse: Warehouse, key: str, n: int) -> None:
    """Prompts p0, p1, ... with texts t0, t1, ...; every other column is as empty as its type allows."""
    with warehouse.writing("test") as connection:
        described = connection.execute("DESCRIBE prompts").fetchall()
        given = {"dataset_version", "prompt_id", "position", "text_id"}
        empty = {"VARCHAR": "''", "BOOLEAN": "false"}
        constants = ", ".join(
            f'{"[]" if kind.endswith("[]") else empty.get(kind, "0")} AS "{name}"'
            for name, kind, *_ in described
            if name not in given
        )
        connection.execute(PROMPTS.format(constants=constants), [key, n])


def test_active_features_are_counted_in_bins(warehouse: Warehouse) -> None:
    add_prompts(warehouse, "a-v1", 4)
    with warehouse.writing("test") as connection:
        for text, n_active in (("t0", 0), ("t1", 1), ("t2", 39), ("t3", 39)):
            connection.execute(
                "INSERT INTO prompt_features BY NAME SELECT 'e' AS encoder_id, ? AS text_id, 9 AS n_tokens, "
                '0 AS n_sink_tokens, range(?) AS feature_ids, [] AS "max", [] AS "sum", [] AS "last", [] AS n_active, '
                "[] AS argmax_token",
                [text, n_active],
            )
    found = warehouse.query("SELECT * EXCLUDE (dataset_version) FROM active_features_histogram")
    assert found.rows() == [(1, 0, 1, 2, 0.5), (1, 38, 39, 2, 0.5)]


def test_dead_and_rare_features_are_held_against_a_parent_with_the_same_sae(warehouse: Warehouse) -> None:
    for key, counts in (("a-v1", [0, 1, 5, 9]), ("a-v2", [3, 0, 1, 9]), ("b-v1", [0, 0, 5, 9])):
        add_prompts(warehouse, key, 10)
        with warehouse.writing("test") as connection:
            connection.execute(DENSITY, [key, counts])
    found = warehouse.query(
        "SELECT dataset_version, n_features, n_dead, dead_fraction, n_rare, compared_with, n_fell_silent, n_woke_up "
        "FROM feature_use"
    )
    assert found.rows() == [
        ("a-v1", 4, 1, 0.25, 1, None, None, None),
        ("a-v2", 4, 1, 0.25, 1, "a-v1", 1, 1),
        ("b-v1", 4, 2, 0.5, 0, None, None, None),
    ]


def test_clusters_are_even_or_not(warehouse: Warehouse) -> None:
    with warehouse.writing("test") as connection:
        for key, sizes in (("a-v1", [5, 5]), ("a-v2", [8, 1, 1]), ("b-v1", [7])):
            fractions = [size / sum(sizes) for size in sizes]
            connection.execute(CLUSTERS, [key, sizes, sizes, fractions])
        connection.execute("INSERT INTO cluster_quality VALUES ('a-v1', 'stability', 0.9, 0.5, 10, 'good', 'words')")
    found = warehouse.query(
        "SELECT dataset_version, n_clusters, smallest, median_size, largest, largest_fraction, stability, silhouette "
        "FROM cluster_balance"
    )
    assert found.rows() == [
        ("a-v1", 2, 5, 5.0, 5, 0.5, 0.9, None),
        ("a-v2", 3, 1, 1.0, 8, 0.8, None, None),
        ("b-v1", 1, 7, 7.0, 7, 1.0, None, None),
    ]
    even, uneven, one = warehouse.query("SELECT balance FROM cluster_balance")["balance"].to_list()
    assert even == pytest.approx(1.0)
    assert uneven == pytest.approx(-(0.8 * math.log(0.8) + 0.2 * math.log(0.1)) / math.log(3))
    assert one is None


def test_a_probe_is_followed_over_versions(warehouse: Warehouse) -> None:
    with warehouse.writing("test") as connection:
        for key, rows, auroc in (
            ("a-v1", "held_out", 0.70),
            ("a-v1", "fitted", 0.95),
            ("a-v2", "held_out", 0.80),
            ("b-v1", "held_out", None),
        ):
            connection.execute(PROBE, [key, rows, auroc])
    found = warehouse.query("SELECT dataset_version, auroc, overfitting, auroc_since_parent FROM probe_over_versions")
    assert found["dataset_version"].to_list() == ["a-v1", "a-v2", "b-v1"]
    assert found["auroc"].to_list() == [0.7, 0.8, None]
    assert found["overfitting"].to_list() == [pytest.approx(0.25), None, None]
    assert found["auroc_since_parent"].to_list() == [None, pytest.approx(0.1), None]


def test_drift_is_followed_over_versions_that_have_a_parent(warehouse: Warehouse) -> None:
    with warehouse.writing("test") as connection:
        for key, value, threshold in (("a-v1", None, 0.2), ("a-v2", 0.1, 0.2), ("b-v1", 0.3, 0.0)):
            connection.execute(DRIFT, [key, value, threshold])
    found = warehouse.query('SELECT dataset_version, parent, "value", share_of_threshold FROM drift_over_versions')
    assert found.rows() == [("a-v2", "a-v1", 0.1, 0.5), ("b-v1", "a-v1", 0.3, None)]


def test_versions_stand_beside_each_other_with_what_is_known_of_them(warehouse: Warehouse) -> None:
    add_prompts(warehouse, "a-v2", 5)
    with warehouse.writing("test") as connection:
        connection.execute(DENSITY, ["a-v2", [0, 0, 1, 5]])
        connection.execute(CLUSTERS, ["a-v2", [4, 1], [4, 1], [0.8, 0.2]])
        connection.execute(PROBE, ["a-v2", "held_out", 0.8])
        connection.execute(PROBE, ["a-v2", "fitted", 0.95])
        connection.execute(DRIFT, ["a-v2", 0.1, 0.2])
        connection.execute("INSERT INTO version_drift VALUES ('a-v2', 'density_shift', 0.3, 0.2, 'drifted', 'words')")
    found = warehouse.query(
        "SELECT dataset_version, n_prompts, dead_fraction, rare_fraction, n_clusters, largest_fraction, auroc, "
        "proxy_spearman, furthest_measure, share_of_threshold FROM version_measures ORDER BY dataset_version"
    )
    nothing = (None,) * 9
    assert found.rows() == [
        ("a-v1", *nothing),
        ("a-v2", 5, 0.5, 0.25, 2, 0.8, 0.8, None, "density_shift", pytest.approx(1.5)),
        ("b-v1", *nothing),
    ]
