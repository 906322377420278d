"""Running a version in this process, without a daemon: what `saerl run` does.

Belongs here: which stages are due, executing them, what came out. Does not belong here: printing.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.storage.tags import PARTITION_NAME_TAG

from saerl_assets.automation.jobs import DEFINITIONS_VARIABLE, is_embedded
from saerl_assets.automation.reaper import reaping
from saerl_assets.domain.errors import SaerlError
from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.resources.run_process import process_tags

if TYPE_CHECKING:
    from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
    from dagster._core.definitions.reconstruct import ReconstructableJob


ORDER_ALONE = {
    (parent, child) for parent in ("cluster_assignments", "label_observations") for child in ("rollouts", "outcomes")
}
"""Pairs of assets of which the first is made before the second, but does not make it due again. The prompts that a
policy has answered were a fair sample of the clusters as they were; labels that arrive later change no answer."""


@dataclass(frozen=True)
class Stage:
    """One asset of a version as Dagster knows it: when it was made, how long that took, and its metadata."""

    asset: str
    made_at: float | None
    run_id: str
    metadata: Mapping[str, object]
    is_due: bool


def open_instance(dagster_home: Path) -> dg.DagsterInstance:
    """The Dagster instance of a home; DAGSTER_HOME is set for this process and those that it starts.

    In somebody else's project it is that project's instance, whatever the home.

    Raises:
        SaerlError: `no_dagster_home`.
    """
    if not is_embedded():
        os.environ["DAGSTER_HOME"] = str(dagster_home)
    elif not os.environ.get("DAGSTER_HOME"):
        problem = f"{DEFINITIONS_VARIABLE} names a project, but DAGSTER_HOME does not say where its runs are recorded."
        remedy = "Export DAGSTER_HOME as the project's webserver and daemon have it."
        raise SaerlError("no_dagster_home", problem, remedy=remedy)
    return dg.DagsterInstance.get()


def add_partition(instance: dg.DagsterInstance, key: str) -> None:
    """Makes the version a partition."""
    instance.add_dynamic_partitions(str(DATASET_VERSIONS.name), [key])


def remove_partition(instance: dg.DagsterInstance, key: str) -> None:
    """Takes the version's partition away."""
    instance.delete_dynamic_partition(str(DATASET_VERSIONS.name), key)


def stages(instance: dg.DagsterInstance, job: dg.JobDefinition, key: str, registered_at: datetime) -> list[Stage]:
    """Every asset of the version in the order of the graph.

    Assets that one step makes together are due together: if one of them was not made since the version was
    registered, if anything upstream of one of them was made later or is due itself, or if one of its blocking checks
    failed or never ran. So running again never steps around a failed check. What stands in `ORDER_ALONE` comes first,
    but makes nothing due.
    """
    graph = job.asset_layer.asset_graph
    # What the job does not make, such as a trial, is no stage of it, and makes nothing due.
    ordered = [each for each in graph.toposorted_asset_keys if each in job.asset_layer.selected_asset_keys]
    since = registered_at.timestamp()
    made: dict[dg.AssetKey, dg.EventLogRecord | None] = {}
    for asset_key in ordered:
        wanted = dg.AssetRecordsFilter(asset_key=asset_key, asset_partitions=[key], after_timestamp=since)
        records = instance.fetch_materializations(wanted, limit=1).records
        made[asset_key] = records[0] if records else None

    @cache
    def is_due(together: frozenset[dg.AssetKey]) -> bool:
        records = [made[member] for member in together]
        if any(record is None for record in records):
            return True
        if any(_is_held_back(instance, graph, member, key, made[member]) for member in together):
            return True
        oldest = min(record.storage_id for record in records if record)
        parents = {
            parent
            for member in together
            for parent in graph.get(member).parent_keys
            if (parent.path[-1], member.path[-1]) not in ORDER_ALONE
        } & made.keys() - together
        newer = any(record and record.storage_id > oldest for record in (made[parent] for parent in parents))
        return newer or any(is_due(_made_with(graph, parent)) for parent in parents)

    return [_stage(asset_key, made[asset_key], is_due=is_due(_made_with(graph, asset_key))) for asset_key in ordered]


def newest_evaluation(
    instance: dg.DagsterInstance, check: dg.AssetCheckKey, key: str, since: float
) -> dg.AssetCheckEvaluation | None:
    """What a check last said of a version, if that was not before `since`.

    The history of a check is that of all versions, newest first.
    """
    cursor = None
    while records := instance.event_log_storage.get_asset_check_execution_history(check, limit=100, cursor=cursor):
        for record in records:
            run = instance.get_run_by_id(record.run_id)
            said = record.event and record.event.dagster_event and record.event.asset_check_evaluation
            if said and record.event and run is not None and run.tags.get(PARTITION_NAME_TAG) == key:
                return said if record.event.timestamp >= since else None
        cursor = records[-1].id
    return None


def made_together(job: dg.JobDefinition, assets: Iterable[str]) -> list[str]:
    """The named assets and those that the same steps make."""
    graph = job.asset_layer.asset_graph
    keys = {member for asset_key in asset_keys(job, assets) for member in _made_with(graph, asset_key)}
    return sorted(asset_key.path[-1] for asset_key in keys)


def asset_keys(job: dg.JobDefinition, assets: Iterable[str]) -> list[dg.AssetKey]:
    """The keys of the named assets, which may have a prefix."""
    known = {asset_key.path[-1]: asset_key for asset_key in job.asset_layer.asset_graph.get_all_asset_keys()}
    return [known[asset] for asset in assets]


def run_stages(
    instance: dg.DagsterInstance,
    job: "ReconstructableJob",
    key: str,
    assets: list[str] | None,
    tags: Mapping[str, str] | None = None,
) -> dg.JobExecutionResult:
    """Materialises `assets` of a version (all where None) in this process, ending dead runs before and meanwhile.

    The caller closes the result.
    """
    selection = None if assets is None else asset_keys(job.get_definition(), assets)
    with reaping(instance):
        return dg.execute_job(
            job,
            instance=instance,
            tags={PARTITION_NAME_TAG: key, **process_tags(), **(tags or {})},
            run_config={"loggers": {"console": {}}},
            asset_selection=selection,
            raise_on_error=False,
        )


def _made_with(graph: "AssetGraph", asset_key: dg.AssetKey) -> frozenset[dg.AssetKey]:
    """The assets that the step of this one makes."""
    return frozenset(each for each in graph.get(asset_key).execution_set_entity_keys if isinstance(each, dg.AssetKey))


def _stage(asset_key: dg.AssetKey, record: dg.EventLogRecord | None, *, is_due: bool) -> Stage:
    materialization = record.asset_materialization if record else None
    return Stage(
        asset=asset_key.path[-1],
        made_at=record.timestamp if record else None,
        run_id=record.run_id if record else "",
        metadata={}
        if materialization is None
        else {name: value.value for name, value in materialization.metadata.items()},
        is_due=is_due,
    )


def _is_held_back(
    instance: dg.DagsterInstance,
    graph: "AssetGraph",
    asset_key: dg.AssetKey,
    key: str,
    record: dg.EventLogRecord | None,
) -> bool:
    """Whether a blocking check of the asset failed, or has not run, since the asset was made."""
    since = record.timestamp if record else 0.0
    for check in graph.get(asset_key).check_keys:
        if graph.get_check_spec(check).blocking:
            said = newest_evaluation(instance, check, key, since)
            if said is None or not said.passed:
                return True
    return False
