"""What is done by the clock: looking after versions at night, clusters that follow their parent's, and making room.

Belongs here: the schedules and their jobs. Does not belong here: what they compute.

Every schedule is off until a person turns it on, or `build_definitions(automation=True)` does; `make_room` removes
files and is off even then.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.storage.tags import PARTITION_NAME_TAG

from saerl_assets.automation.arrivals import UNFINISHED
from saerl_assets.domain.arrivals import newest_keys, split_key
from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.placement import Placement, told_plainly
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.leftovers import Leftover, find_leftovers, remove

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

OLDER_THAN_DAYS = 7.0
LOOKED_AFTER = ("cluster_drift", "version_drift", "artifacts")
"""What a night makes anew: drift, since a parent may have been clustered again, and the digests of all files. Nothing
that a score or an order is made from is among it, so a night makes nothing else due."""
CLUSTERED_AGAIN = (
    "clusters",
    "cluster_assignments",
    "cluster_quality",
    "cluster_drift",
    "version_drift",
    "cluster_map",
    "feature_examples",
    "version_report",
)


def nightly_job(placement: Placement, tables: Sequence[str]) -> "UnresolvedAssetJobDefinition":
    """Drift, the digests of what lies on disk, and every check of a version."""
    assets = dg.AssetSelection.assets(*map(placement.key, LOOKED_AFTER))
    checks = dg.AssetSelection.checks_for_assets(*map(placement.key, tables))
    return dg.define_asset_job(
        placement.name("look_after"),
        selection=assets.without_checks() | checks,
        description="Measures drift again, holds every file against its digest, and runs every check of a version.",
        executor_def=dg.in_process_executor,
    )


def refresh_clusters_job(placement: Placement) -> "UnresolvedAssetJobDefinition":
    """Clusters a version again, from its parent's centroids as they are now."""
    return dg.define_asset_job(
        placement.name("refresh_clusters"),
        selection=dg.AssetSelection.assets(*map(placement.key, CLUSTERED_AGAIN)),
        description="Clusters a version again, going on from its parent's centroids as they are now; the order stays.",
        executor_def=dg.in_process_executor,
    )


def make_room_job(placement: Placement) -> dg.JobDefinition:
    """Removes what the home keeps without needing it."""
    home_key = placement.resource("home")

    @dg.op(
        name=placement.name("remove_leftovers"),
        required_resource_keys={home_key},
        config_schema={"older_than_days": dg.Field(float, default_value=OLDER_THAN_DAYS)},
    )
    def remove_leftovers(context: dg.OpExecutionContext) -> None:
        """Removes leftovers: old shards and caches, exports, reports and artefacts that nothing refers to."""
        home: HomeResource = getattr(context.resources, home_key)
        with told_plainly():
            found = leftovers(home, context.instance, context.op_config["older_than_days"])
            freed = remove(found)
        for leftover in found:
            context.log.info(f"{leftover.path}: {leftover.why}, {leftover.n_bytes:,} bytes.")
        context.log.info(f"Removed {len(found)} leftovers; that freed {freed:,} bytes.")

    @dg.job(
        name=placement.name("make_room"),
        description="Removes old shards and caches, and exports, reports and artefacts that nothing refers to.",
        executor_def=dg.in_process_executor,
    )
    def make_room() -> None:
        remove_leftovers()

    return make_room


def leftovers(home: HomeResource, instance: dg.DagsterInstance, older_than_days: float) -> list[Leftover]:
    """What can go, with everything left alone of which a run is going on or waiting."""
    runs = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    busy = {run.tags[PARTITION_NAME_TAG] for run in runs if PARTITION_NAME_TAG in run.tags}
    return find_leftovers(home.open(), home.warehouse(), busy=busy, older_than_days=older_than_days)


def upkeep_schedules(placement: Placement, status: dg.DefaultScheduleStatus) -> list[dg.ScheduleDefinition]:
    """All schedules; times are UTC."""

    @dg.schedule(
        name=placement.name("nightly"),
        cron_schedule="0 2 * * *",
        job_name=placement.name("look_after"),
        default_status=status,
        description="Every night at 2: drift, files against their digests and every check, of the newest version of "
        "each name.",
    )
    def nightly(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        return _for_each(_newest_built(context.instance, placement), "nightly", context)

    @dg.schedule(
        name=placement.name("weekly_clusters"),
        cron_schedule="0 3 * * 0",
        job_name=placement.name("refresh_clusters"),
        default_status=status,
        description="Every Sunday at 3: the newest version of each name is clustered again from its parent's "
        "centroids, where it is not the first.",
    )
    def weekly_clusters(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        later = [key for key in _newest_built(context.instance, placement) if split_key(key)[1] > 1]
        return _for_each(later, "clusters", context)

    room = dg.ScheduleDefinition(
        name=placement.name("weekly_room"),
        cron_schedule="0 4 * * 0",
        job_name=placement.name("make_room"),
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=f"Every Sunday at 4: removes what `saerl gc` lists, older than {OLDER_THAN_DAYS:g} days.",
    )
    return [nightly, weekly_clusters, room]


def _for_each(
    keys: Sequence[str], what: str, context: dg.ScheduleEvaluationContext
) -> list[dg.RunRequest] | dg.SkipReason:
    """A run for each version, once a tick."""
    if not keys:
        return dg.SkipReason("There is no version that this is for.")
    day = context.scheduled_execution_time.date().isoformat()
    return [dg.RunRequest(run_key=f"{what}:{key}:{day}", partition_key=key) for key in keys]


def _newest_built(instance: dg.DagsterInstance, placement: Placement) -> list[str]:
    """The newest version of each name, where it was built to its end once."""
    newest = newest_keys(instance.get_dynamic_partitions(str(DATASET_VERSIONS.name)))
    built = instance.get_materialized_partitions(placement.key("version_report"))
    return sorted(set(newest.values()) & set(built))
