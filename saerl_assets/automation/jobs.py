"""The job `build_version`: the whole graph for one version.

Belongs here: jobs. Does not belong here: deciding when they run.
"""

import importlib
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from dagster._core.definitions.reconstruct import ReconstructableJob

BUILD_VERSION = "build_version"

build_version = dg.define_asset_job(
    BUILD_VERSION,
    selection=dg.AssetSelection.all(),
    description="Every asset and check of one dataset version, from the source file to the trainer exports.",
)


def load_job() -> dg.JobDefinition:
    """The job `build_version` with the assets and resources of the code location."""
    definitions: dg.Definitions = importlib.import_module("saerl_assets.definitions").defs
    return definitions.resolve_job_def(BUILD_VERSION)


def reconstructable_job() -> "ReconstructableJob":
    """The same in a form that Dagster can load again by name."""
    return dg.reconstructable(load_job)
