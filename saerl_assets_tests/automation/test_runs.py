"""Which stages are due: what a run leaves alone and what it makes again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import dagster as dg
import pytest

from saerl_assets.automation.jobs import load_job
from saerl_assets.automation.runs import (
    ORDER_ALONE,
    add_partition,
    made_together,
    open_instance,
    remove_partition,
    stages,
)
from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.resources.home import HomeResource
from saerl_assets_tests.tiny import MADE_BY_A_RUN

KEY = "due-v1"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def job() -> dg.JobDefinition:
    return load_job()


@pytest.fixture
def instance(fresh_home: HomeResource) -> Iterator[dg.DagsterInstance]:
    with open_instance(fresh_home.open().dagster) as opened:
        add_partition(opened, KEY)
        yield opened


@pytest.fixture(autouse=True)
def verdicts(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool | None]:
    """What each check last said, by its name: passed where nothing else is noted, None where it never ran."""
    noted: dict[str, bool | None] = {}

    def newest(_instance: object, check: dg.AssetCheckKey, _key: str, _since: float) -> SimpleNamespace | None:
        passed = noted.get(check.name, True)
        return None if passed is None else SimpleNamespace(passed=passed)

    monkeypatch.setattr("saerl_assets.automation.runs.newest_evaluation", newest)
    return noted


def make(instance: dg.DagsterInstance, *assets: str, key: str = KEY) -> None:
    for asset in assets:
        instance.report_runless_asset_event(dg.AssetMaterialization(asset_key=asset, partition=key))


def in_order(job: dg.JobDefinition) -> list[str]:
    return [key.to_user_string() for key in job.asset_layer.asset_graph.toposorted_asset_keys]


def due(instance: dg.DagsterInstance, job: dg.JobDefinition, since: datetime = LONG_AGO) -> set[str]:
    return {stage.asset for stage in stages(instance, job, KEY, since) if stage.is_due}


def downstream(job: dg.JobDefinition, *assets: str) -> set[str]:
    """The assets, those of the same steps, and all that builds on them, but for what is only made after them."""
    graph = job.asset_layer.asset_graph
    found: set[dg.AssetKey] = set()
    waiting = [dg.AssetKey(asset) for asset in assets]
    while waiting:
        key = waiting.pop()
        if key not in found:
            found.add(key)
            together = {other for other in graph.get(key).execution_set_entity_keys if isinstance(other, dg.AssetKey)}
            waiting += together
            waiting += [
                child for child in graph.get(key).child_keys if (key.path[-1], child.path[-1]) not in ORDER_ALONE
            ]
    return {key.to_user_string() for key in found} & MADE_BY_A_RUN


def test_everything_is_due_at_first_and_nothing_once_it_is_made(
    instance: dg.DagsterInstance, job: dg.JobDefinition
) -> None:
    assert due(instance, job) == MADE_BY_A_RUN
    make(instance, *in_order(job))
    assert due(instance, job) == set()


@pytest.mark.parametrize("said", [False, None])
def test_a_blocking_check_that_failed_or_never_ran_holds_its_asset_back(
    instance: dg.DagsterInstance, job: dg.JobDefinition, verdicts: dict[str, bool | None], *, said: bool | None
) -> None:
    make(instance, *in_order(job))
    verdicts["sae_fits"] = said
    assert due(instance, job) == downstream(job, "sae_health")


def test_a_check_that_only_warns_holds_nothing_back(
    instance: dg.DagsterInstance, job: dg.JobDefinition, verdicts: dict[str, bool | None]
) -> None:
    make(instance, *in_order(job))
    verdicts["few_dead_latents"] = False
    assert due(instance, job) == set()


def test_stages_come_in_an_order_in_which_they_can_be_made(instance: dg.DagsterInstance, job: dg.JobDefinition) -> None:
    found = [stage.asset for stage in stages(instance, job, KEY, LONG_AGO)]
    graph = job.asset_layer.asset_graph
    for place, asset in enumerate(found):
        parents = {parent.to_user_string() for parent in graph.get(dg.AssetKey(asset)).parent_keys}
        assert parents & MADE_BY_A_RUN <= set(found[:place])


@pytest.mark.parametrize(
    "asset", ["prompts", "sae_weights", "sae_health", "clusters", "quality_probe", "manifests", "artifacts"]
)
def test_what_builds_on_something_newer_is_due(asset: str, instance: dg.DagsterInstance, job: dg.JobDefinition) -> None:
    make(instance, *in_order(job))
    together = made_together(job, [asset])
    make(instance, *together)
    assert due(instance, job) == downstream(job, asset) - set(together)


def test_an_asset_that_is_missing_makes_those_of_its_step_due(
    instance: dg.DagsterInstance, job: dg.JobDefinition
) -> None:
    make(instance, *(asset for asset in in_order(job) if asset != "clusters"))
    assert due(instance, job) == downstream(job, "clusters")
    assert "cluster_assignments" in due(instance, job)


def test_what_another_version_made_does_not_count(instance: dg.DagsterInstance, job: dg.JobDefinition) -> None:
    add_partition(instance, "other-v1")
    make(instance, *in_order(job), key="other-v1")
    assert due(instance, job) == MADE_BY_A_RUN


def test_what_was_made_before_the_version_was_registered_does_not_count(
    instance: dg.DagsterInstance, job: dg.JobDefinition
) -> None:
    make(instance, *in_order(job))
    assert due(instance, job, datetime.now(UTC) + timedelta(seconds=5)) == MADE_BY_A_RUN


def test_one_step_makes_several(job: dg.JobDefinition) -> None:
    assert made_together(job, ["clusters"]) == ["cluster_assignments", "cluster_quality", "clusters"]
    assert made_together(job, ["labels", "prompt_states"]) == ["labels", "prompt_features", "prompt_states"]


def test_partitions_come_and_go(instance: dg.DagsterInstance) -> None:
    name = str(DATASET_VERSIONS.name)
    add_partition(instance, KEY)
    assert instance.get_dynamic_partitions(name) == [KEY]
    remove_partition(instance, KEY)
    assert instance.get_dynamic_partitions(name) == []
