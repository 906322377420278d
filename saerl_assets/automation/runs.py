"""Running a version in this process, without a daemon: what `saerl run` does.

Belongs here: which stages are due, executing them, what came out. Does not belong here: printing.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import dagster as dg
from dagster._core.storage.tags import PARTITION_NAME_TAG

from saerl_assets.automation.reaper import process_tags, reap_dead_runs
from saerl_assets.partitions import DATASET_VERSIONS


@dataclass(frozen=True)
class Stage:
    """One asset of a version as Dagster knows it: when it was made, how long that took, and its metadata."""

    asset: str
    made_at: float | None
    run_id: str
    metadata: Mapping[str, object]
    is_due: bool


def open_instance(dagster_home: Path) -> dg.DagsterInstance:
    """The Dagster instance of a home; DAGSTER_HOME is set for this process and those that it starts."""
    os.environ["DAGSTER_HOME"] = str(dagster_home)
    return dg.DagsterInstance.get()


def add_partition(instance: dg.DagsterInstance, key: str) -> None:
    """Makes the version a partition."""
    instance.add_dynamic_partitions(str(DATASET_VERSIONS.name), [key])


def remove_partition(instance: dg.DagsterInstance, key: str) -> None:
    """Takes the version's partition away."""
    instance.delete_dynamic_partition(str(DATASET_VERSIONS.name), key)


def stages(
    instance: dg.DagsterInstance, job: dg.JobDefinition, key: str, registered_at: datetime
) -> list[Stage]:
    """Every asset of the version in the order of the graph.

    One is due if it was not made since the version was registered, or if anything upstream of it was made later or is
    due itself.
    """
    graph = job.asset_layer.asset_graph
    made: dict[dg.AssetKey, dg.EventLogRecord | None] = {}
    due: set[dg.AssetKey] = set()
    found = []
    since = registered_at.timestamp()
    for asset_key in graph.toposorted_asset_keys:
        records = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=asset_key, asset_partitions=[key], after_timestamp=since), limit=1
        ).records
        record = made[asset_key] = records[0] if records else None
        parents = graph.get(asset_key).parent_keys
        newest = max((made[parent].storage_id for parent in parents if made.get(parent)), default=0)  # type: ignore[union-attr]
        if record is None or record.storage_id < newest or due & set(parents):
            due.add(asset_key)
        materialization = record.asset_materialization if record else None
        found.append(
            Stage(
                asset=asset_key.path[-1],
                made_at=record.timestamp if record else None,
                run_id=record.run_id if record else "",
                metadata={} if materialization is None else {k: v.value for k, v in materialization.metadata.items()},
                is_due=asset_key in due,
            )
        )
    return found


def run_stages(
    instance: dg.DagsterInstance, job: dg.ReconstructableJob, key: str, assets: list[str] | None
) -> dg.JobExecutionResult:  # type: ignore[name-defined]
    """Materialises `assets` of a version (all where None) in this process, dead runs ended first.

    The caller closes the result.
    """
    reap_dead_runs(instance)
    selection = None if assets is None else [dg.AssetKey(asset) for asset in assets]
    return dg.execute_job(
        job,
        instance=instance,
        tags={PARTITION_NAME_TAG: key, **process_tags()},
        asset_selection=selection,
        raise_on_error=False,
    )
