"""What new labels refresh by themselves, and what they leave alone."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from saerl_assets.automation.refresh import (
    CHECKED_NIGHTLY,
    REFRESHED_BY,
    REPLAN_METADATA,
    REPLANNED_BY,
    STARTED_BY_TAG,
)
from saerl_assets.definitions import build_definitions
from saerl_assets.partitions import DATASET_VERSIONS

KEY, OTHER = "watched-v1", "other-v1"
SCORES = {
    *("labels", "signal_evidence", "evidence_curve", "evidence_verdicts"),
    *("difficulty_proxy", "difficulty_scores", "quality_probe", "probe_calibration", "quality_scores"),
    *("control_signals", "version_report"),
}
ORDER = {"batch_manifest", "deferred_prompts", "manifests", "batch_metrics", "trainer_exports", "artifacts"}


class Watched:
    """A project's event log, and what the conditions ask for as it goes on."""

    def __init__(self, prefix: str = "") -> None:
        self.definitions = build_definitions(key_prefix=prefix)
        self.prefix = [prefix] if prefix else []
        self.instance = dg.DagsterInstance.ephemeral()
        self.cursor: Any = None
        self.tables = {key.path[-1] for key in self.definitions.resolve_all_asset_keys()}

    def build(self, key: str, *, replan: bool = False) -> None:
        self.instance.add_dynamic_partitions(str(DATASET_VERSIONS.name), [key])
        for table in sorted(self.tables):
            self.make(key, table, {REPLAN_METADATA: replan} if table == "versions" else {})

    def make(self, key: str, table: str, metadata: dict[str, Any] | None = None) -> None:
        event = dg.AssetMaterialization([*self.prefix, table], partition=key, metadata=metadata)
        self.instance.report_runless_asset_event(event)

    def tick(self) -> dict[str, set[str]]:
        """The tables asked for, by version."""
        found = dg.evaluate_automation_conditions(
            self.definitions, self.instance, dg.AssetSelection.all(), cursor=self.cursor
        )
        self.cursor = found.cursor
        asked: dict[str, set[str]] = {}
        for result in found.results:
            for key in found.get_requested_partitions(result.key):
                asked.setdefault(str(key), set()).add(result.key.path[-1])
        return asked


@pytest.fixture(params=["", "rl"], ids=["plain", "prefixed"])
def watched(request: pytest.FixtureRequest) -> Watched:
    made = Watched(request.param)
    made.build(KEY)
    assert made.tick() == {}, "what was there before is left alone"
    return made


def test_new_labels_refresh_scores_evidence_and_report_and_nothing_else(watched: Watched) -> None:
    watched.make(KEY, "label_observations")
    assert watched.tick() == {KEY: SCORES}
    assert watched.tick() == {}, "once"


def test_what_a_training_measured_refreshes_the_report_which_shows_it_and_nothing_else(watched: Watched) -> None:
    watched.make(KEY, "training_feedback")
    assert watched.tick() == {KEY: {"version_report"}}
    assert watched.tick() == {}, "once"


def test_a_manifest_is_planned_anew_only_for_the_version_whose_spec_says_so(watched: Watched) -> None:
    watched.build(OTHER, replan=True)
    assert watched.tick() == {}
    for key in (KEY, OTHER):
        watched.make(key, "label_observations")
    assert watched.tick() == {KEY: SCORES, OTHER: SCORES | ORDER}


@pytest.mark.parametrize(
    "table", ["prompts", "prompt_features", "clusters", "sae_health", "batch_manifest", "versions"]
)
def test_whatever_else_is_made_by_hand_refreshes_no_score(table: str) -> None:
    watched = Watched()
    watched.build(KEY)
    watched.tick()
    watched.make(KEY, table)
    assert watched.tick() == {}


def test_scores_made_by_hand_lead_to_a_manifest_only_where_the_spec_says_so(watched: Watched) -> None:
    watched.build(OTHER, replan=True)
    watched.tick()
    for key in (KEY, OTHER):
        watched.make(key, "difficulty_scores")
    asked = watched.tick()
    assert {key: tables & ORDER for key, tables in asked.items()} == {KEY: set(), OTHER: ORDER}
    assert asked[KEY] == {"control_signals", "version_report"}


def test_a_version_that_was_never_built_is_not_built(watched: Watched) -> None:
    watched.instance.add_dynamic_partitions(str(DATASET_VERSIONS.name), [OTHER])
    assert watched.tick() == {}
    watched.make(OTHER, "label_observations")
    assert watched.tick() == {}


def test_every_cause_is_a_dependency_and_every_table_is_known() -> None:
    graph = build_definitions().resolve_asset_graph()
    for table, causes in (REFRESHED_BY | REPLANNED_BY).items():
        parents = {key.to_user_string() for key in graph.get(dg.AssetKey(table)).parent_keys}
        assert set(causes) <= parents, table
    assert set(REFRESHED_BY) == SCORES
    assert set(REPLANNED_BY) == ORDER


def test_the_sensor_starts_one_run_a_version_and_only_where_it_is_on() -> None:
    watched = Watched("rl")
    watched.build(KEY)
    for automation, status in ((True, dg.DefaultSensorStatus.RUNNING), (False, dg.DefaultSensorStatus.STOPPED)):
        repository = build_definitions(key_prefix="rl", automation=automation).get_repository_def()
        assert repository.get_sensor_def("rl_refresh").default_status == status
    sensor = repository.get_sensor_def("rl_refresh")
    first = sensor.evaluate_tick(dg.build_sensor_context(watched.instance, repository_def=repository))
    assert first.run_requests == []
    watched.make(KEY, "label_observations")
    context = dg.build_sensor_context(watched.instance, cursor=first.cursor, repository_def=repository)
    (request,) = sensor.evaluate_tick(context).run_requests or []
    assert request.partition_key == KEY
    assert {key.path[-1] for key in request.asset_selection or ()} == SCORES
    assert request.tags[STARTED_BY_TAG] == "refresh"
    graph = repository.asset_graph
    checks = graph.get_check_keys_for_assets({dg.AssetKey(["rl", table]) for table in SCORES})
    assert checks
    assert set(request.asset_check_keys or ()) == checks, "what is made is checked in the same run"


def test_what_a_schedule_makes_nightly_ages_and_nothing_else_does() -> None:
    for automation, aging in ((True, set(CHECKED_NIGHTLY)), (False, set())):
        specs = build_definitions(automation=automation).resolve_all_asset_specs()
        assert {spec.key.path[-1] for spec in specs if spec.freshness_policy is not None} == aging
