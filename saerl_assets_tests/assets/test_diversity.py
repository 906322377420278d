"""Clusters from version to version: what a child continues, when it starts afresh, and how drift is told."""

from __future__ import annotations

import json

import polars as pl
import pytest

from saerl_assets.automation.summary import RunSummary, run_version
from saerl_assets.resources.centroids import load_centroids
from saerl_assets.resources.home import HomeResource
from saerl_assets_tests.tiny import KEY, N_PROMPTS, TinyWorld, source_lines, source_rows, write_rows

CHILD = "tiny-v2"
N_NEW = 12
STAGES = (
    "versions",
    "prompts",
    "sae_weights",
    "sae_health",
    "control_saes",
    "prompt_features",
    "feature_density",
    "clusters",
    "cluster_drift",
)
MEASURES = {"moved_fraction", "population_shift", "centroid_shift", "density_shift"}


@pytest.fixture(scope="module")
def grown(tiny_world: TinyWorld) -> TinyWorld:
    """The tiny world with a file that has more rows of the same kinds."""
    more = [json.dumps(row) for row in source_rows(N_PROMPTS + N_NEW)[N_PROMPTS:]]
    write_rows(tiny_world.folder / "grown.jsonl", [*source_lines(), *more])
    return tiny_world


def child(grown: TinyWorld, home: HomeResource, /, **changes: object) -> RunSummary:
    made: dict[str, object] = {"parent": KEY, "data": {"source": "path:grown.jsonl"}, "sae": {"source": "auto"}}
    grown.register(home, CHILD, **(made | changes))
    done = run_version(home, CHILD, only=STAGES)
    assert done.success, done.failure
    return done


def rows(home: HomeResource, table: str, key: str = CHILD) -> pl.DataFrame:
    return home.warehouse().rows(table, dataset_version=key)


def result(done: RunSummary, check: str) -> tuple[str, str]:
    found: list[tuple[str, str]] = [(state, says) for name, state, says in done.state.checks if name == check]
    return found[0]


def test_a_version_without_a_parent_has_no_drift_and_says_so(tiny_home: HomeResource) -> None:
    assert rows(tiny_home, "cluster_drift", KEY).is_empty()
    measured = rows(tiny_home, "version_drift", KEY)
    assert set(measured["measure"]) == MEASURES
    assert set(measured["explanation"]) == {"Not measured: The version has no parent."}
    assert rows(tiny_home, "clusters", KEY)["parent_digest"].null_count() == rows(tiny_home, "clusters", KEY).height


def test_tokens_that_fire_features_are_text_of_the_prompts(tiny_home: HomeResource) -> None:
    described = rows(tiny_home, "clusters", KEY)
    said = described["firing_tokens"].explode(empty_as_null=False).to_list()
    assert described["top_features"].list.len().to_list() == described["firing_tokens"].list.len().to_list()
    assert said
    letters = set("".join(rows(tiny_home, "prompts", KEY)["text"]))
    assert all(set(tokens) <= letters | {",", " ", "'"} for tokens in said), "the tiny tokenizer's tokens are letters"


def test_a_child_continues_the_clusters_of_its_parent(grown: TinyWorld, copied_home: HomeResource) -> None:
    done = child(grown, copied_home)
    before, after = rows(copied_home, "clusters", KEY), rows(copied_home, "clusters")
    assert set(after["parent_digest"]) == set(before["centroids_digest"])
    assert set(after["start"]) == {f"Continues the clusters of {KEY}."}
    assert set(after["cluster_id"]) <= set(before["cluster_id"])
    common = rows(copied_home, "cluster_assignments", KEY).join(
        rows(copied_home, "cluster_assignments"), on="prompt_id", suffix="_after"
    )
    moved = common.select((pl.col("cluster_id") != pl.col("cluster_id_after")).mean()).item()
    measured = dict(rows(copied_home, "version_drift").select("measure", "value").iter_rows())
    assert common.height == N_PROMPTS
    assert moved < 0.2
    assert measured["moved_fraction"] == pytest.approx(moved)
    assert None not in measured.values()
    by_cluster = rows(copied_home, "cluster_drift")
    assert int(by_cluster["n_prompts_before"].sum()) == N_PROMPTS
    assert int(by_cluster["n_prompts_after"].sum()) == N_PROMPTS + N_NEW
    assert result(done, "version_drift.near_the_parent")[0] == "passed"
    old, new = (load_centroids(copied_home, frame["centroids_digest"][0]) for frame in (before, after))
    assert (old.weights == new.weights).all()


FRESH: dict[str, tuple[dict[str, object], str]] = {
    "asked for": ({"clusters": {"start": "fresh"}}, 'clusters.start = "fresh"'),
    "another weighting": ({"clusters": {"weighting": "none"}}, "has clusters.weighting = "),
    "another SAE": ({"sae": {"source": ["path:sae"]}, "reader": {"layers": [2]}}, "reads with other encoders"),
}


@pytest.mark.parametrize("case", FRESH)
def test_where_features_or_their_weights_differ_the_clusters_start_afresh(
    case: str, grown: TinyWorld, copied_home: HomeResource
) -> None:
    changes, why = FRESH[case]
    child(grown, copied_home, **changes)
    described, measured = rows(copied_home, "clusters"), rows(copied_home, "version_drift")
    assert described["parent_digest"].null_count() == described.height
    assert why in described["start"][0]
    assert rows(copied_home, "cluster_drift").is_empty()
    said = measured.filter(measure="moved_fraction").row(0, named=True)
    assert said["value"] is None
    assert why in said["explanation"]
    density = measured.filter(measure="density_shift")["value"][0]
    assert (density is None) == (case == "another SAE")


def test_drift_beyond_the_limits_fails_a_check_and_stops_nothing(grown: TinyWorld, copied_home: HomeResource) -> None:
    done = child(grown, copied_home, drift={"max_density_shift": 0.0})
    state, says = result(done, "version_drift.near_the_parent")
    assert state != "passed"
    assert "Bray-Curtis dissimilarity" in says


def test_a_parent_that_was_clustered_again_is_told_from_the_one_that_was_continued(
    grown: TinyWorld, copied_home: HomeResource
) -> None:
    child(grown, copied_home)
    with copied_home.warehouse().writing("another clustering") as connection:
        connection.execute("UPDATE clusters SET centroids_digest = 'other' WHERE dataset_version = ?", [KEY])
    assert run_version(copied_home, CHILD, only=["cluster_drift"]).success
    assert "clustered again since" in rows(copied_home, "version_drift")["explanation"][0]
