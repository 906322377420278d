"""The composition root: which assets, checks, jobs and resources there are, put together once.

Belongs here: `build_definitions`. Does not belong here: anything that computes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from saerl_assets.assets import artifacts as artifacts_asset
from saerl_assets.assets import (
    batches,
    cluster_map,
    clusters,
    control_signals,
    difficulty,
    drift,
    evidence,
    exports,
    feature_examples,
    features,
    feedback,
    hygiene,
    labels,
    outcomes,
    prompts,
    quality,
    report,
    sae,
    training_trial,
    versions,
)
from saerl_assets.automation.alerts import Alert, alert_sensor
from saerl_assets.automation.arrivals import inbox_sensor, new_versions_sensor, take_in_job, watched_sources_sensor
from saerl_assets.automation.feedback import (
    late_labels_sensor,
    next_epoch_sensor,
    plan_order_job,
    take_feedback_job,
)
from saerl_assets.automation.jobs import build_version_job, run_trial_job
from saerl_assets.automation.reaper import dead_runs_sensor
from saerl_assets.automation.refresh import condition_of, freshness_of, refresh_sensor
from saerl_assets.automation.upkeep import make_room_job, nightly_job, refresh_clusters_job, upkeep_schedules
from saerl_assets.checks import CHECK_MODULES
from saerl_assets.placement import Placement, Retries, place
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.console import console_lines
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.tables import WarehouseTables

ASSET_MODULES = [
    versions,
    prompts,
    labels,
    feedback,
    sae,
    features,
    clusters,
    outcomes,
    cluster_map,
    feature_examples,
    drift,
    difficulty,
    quality,
    hygiene,
    evidence,
    control_signals,
    batches,
    exports,
    artifacts_asset,
    training_trial,
    report,
]


def build_definitions(  # noqa: PLR0913 - by keyword, each with a default
    *,
    home: HomeResource | str | Path | None = None,
    compute: ComputeResource | None = None,
    key_prefix: str | Sequence[str] | None = None,
    group_name: str | None = None,
    pool: str | None = None,
    retries: Retries | None = None,
    run_tags: Mapping[str, Any] | None = None,
    model_tags: Mapping[str, Any] | None = None,
    automation: bool = False,
    on_failure: Callable[[Alert], None] | None = None,
) -> dg.Definitions:
    """The whole platform as Dagster definitions, to be used as they are or merged with a project's own.

    Nothing in them stands in the way of others: resources have keys of their own, the job has its own executor, and
    with a prefix so have assets, steps, jobs, sensors and schedules.

    Args:
        home: Where everything is kept; by default SAERL_HOME, else the nearest `.saerl` upwards.
        compute: Device and token budget; by default the best device there is.
        key_prefix: Before the name of every asset: `rl`, `team/rl` or a list of parts.
        group_name: One group for all assets, in place of the graph's five.
        pool: Pool of the assets that read a model; by default `gpu`.
        retries: How often and after how long a step is tried again that failed for a passing reason.
        run_tags: Tags of the runs that read a model: what a queue limits, what a launcher gives them. See `deploy/`.
        model_tags: Tags of the steps that read a model, such as what a pod of theirs asks for.
        automation: Whether the sensors and schedules that start runs are on from the beginning. Otherwise they are
            there, stopped, and a person turns them on in the UI.
        on_failure: Called with every failed run of these assets; by default a webhook or a command is, where
            SAERL_ALERT_WEBHOOK or SAERL_ALERT_COMMAND names one.

    Raises:
        SaerlError: `setting_invalid`.
    """
    home = home if isinstance(home, HomeResource) else HomeResource(root=str(home or ""))
    placement = Placement.parse(
        key_prefix,
        group_name=group_name,
        pool=pool,
        retries=retries or Retries(),
        run_tags=run_tags or {},
        model_tags=model_tags or {},
    )
    assets = [place(asset, placement) for asset in _loaded(dg.load_assets_from_modules(ASSET_MODULES))]
    checks = [place(check, placement) for check in dg.load_asset_checks_from_modules(CHECK_MODULES)]
    tables = sorted(key.path[-1] for asset in assets for key in asset.keys)
    policies = partial(_policies, placement=placement, automation=automation)
    status = dg.DefaultSensorStatus.RUNNING if automation else dg.DefaultSensorStatus.STOPPED
    scheduled = dg.DefaultScheduleStatus.RUNNING if automation else dg.DefaultScheduleStatus.STOPPED
    return dg.Definitions(
        assets=[asset.map_asset_specs(policies) for asset in assets],
        asset_checks=checks,
        jobs=[
            build_version_job(placement, tables),
            run_trial_job(placement),
            take_in_job(placement),
            take_feedback_job(placement),
            plan_order_job(placement),
            nightly_job(placement, tables),
            refresh_clusters_job(placement),
            make_room_job(placement),
        ],
        schedules=upkeep_schedules(placement, scheduled),
        sensors=[
            dead_runs_sensor(placement),
            inbox_sensor(placement, status),
            watched_sources_sensor(placement, status),
            new_versions_sensor(placement, status),
            late_labels_sensor(placement, status),
            next_epoch_sensor(placement, status),
            refresh_sensor(placement, tables, status),
            alert_sensor(placement, tables, on_failure),
        ],
        resources={
            placement.resource("home"): home,
            placement.resource("compute"): compute or ComputeResource(),
            placement.resource("tables"): WarehouseTables(home=home),
        },
    )


def _loaded(found: Sequence[object]) -> list[dg.AssetsDefinition]:
    return [asset for asset in found if isinstance(asset, dg.AssetsDefinition)]


def _policies(spec: dg.AssetSpec, placement: Placement, *, automation: bool) -> dg.AssetSpec:
    """Group, automation and freshness of one asset."""
    table = spec.key.path[-1]
    return spec.replace_attributes(
        group_name=placement.group(spec.group_name or ""),
        automation_condition=condition_of(table, placement),
        freshness_policy=freshness_of(table) if automation else None,
    )


defs = dg.Definitions.merge(
    build_definitions(), dg.Definitions(executor=dg.in_process_executor, loggers={"console": console_lines})
)
