"""The composition root: which assets, checks, jobs and resources there are, put together once.

Belongs here: `build_definitions`. Does not belong here: anything that computes.
"""

import dagster as dg

from saerl_assets.assets import artifacts as artifacts_asset
from saerl_assets.assets import (
    batches,
    clusters,
    difficulty,
    drift,
    evidence,
    exports,
    features,
    hygiene,
    labels,
    prompts,
    quality,
    report,
    sae,
    versions,
)
from saerl_assets.automation.jobs import build_version
from saerl_assets.automation.reaper import dead_runs
from saerl_assets.checks import CHECK_MODULES
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.console import console_lines
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.tables import WarehouseTables

ASSET_MODULES = [
    versions,
    prompts,
    labels,
    sae,
    features,
    clusters,
    drift,
    difficulty,
    quality,
    hygiene,
    evidence,
    batches,
    exports,
    artifacts_asset,
    report,
]


def build_definitions(*, home: HomeResource | None = None, compute: ComputeResource | None = None) -> dg.Definitions:
    """The whole platform as Dagster definitions.

    Args:
        home: Where everything is kept; by default SAERL_HOME, else the nearest `.saerl` upwards.
        compute: Device and token budget; by default the best device there is.
    """
    home = home or HomeResource()
    return dg.Definitions(
        assets=dg.load_assets_from_modules(ASSET_MODULES),
        asset_checks=dg.load_asset_checks_from_modules(CHECK_MODULES),
        jobs=[build_version],
        sensors=[dead_runs],
        resources={
            "home": home,
            "compute": compute or ComputeResource(),
            "io_manager": WarehouseTables(home=home),
        },
        loggers={"console": console_lines},
        executor=dg.in_process_executor,
    )


defs = build_definitions()
