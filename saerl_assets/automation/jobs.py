"""The job `build_version`: the whole graph for one version, and finding it again by name.

Belongs here: jobs, and the definitions that they are in. Does not belong here: deciding when they run.

The command line runs this project's own definitions, or those of the project that SAERL_DEFINITIONS names
(`acme.definitions`, or `acme.definitions:defs`), where the graph may have a prefix and a home of its own.
"""

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from saerl_assets.domain.errors import SaerlError
from saerl_assets.placement import PREFIX_METADATA, Placement
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.console import console_lines
from saerl_assets.resources.home import HomeResource

if TYPE_CHECKING:
    from dagster._core.definitions.reconstruct import ReconstructableJob
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

BUILD_VERSION = "build_version"
RUN_TRIAL = "run_trial"
ON_REQUEST = ("trial_evaluations", "trial_summary")
"""Assets that are made only where a person asks for them, because they train a policy for hours."""
DEFINITIONS_VARIABLE = "SAERL_DEFINITIONS"
OWN_DEFINITIONS = "saerl_assets.definitions:defs"


@dataclass(frozen=True)
class Project:
    """A Dagster project that has the graph in it."""

    definitions: dg.Definitions
    placement: Placement
    home: HomeResource
    compute: ComputeResource

    @property
    def job(self) -> dg.JobDefinition:
        """The job `build_version`."""
        return self.job_named(BUILD_VERSION)

    def job_named(self, plain: str) -> dg.JobDefinition:
        """A job under its name there, printing what `saerl run` prints."""
        job = self.definitions.resolve_job_def(self.placement.name(plain))
        return job.with_logger_defs({"console": console_lines})


def build_version_job(placement: Placement, tables: Sequence[str]) -> "UnresolvedAssetJobDefinition":
    """The job for the assets that fill these tables and their checks. It runs in one process, so a model loads once."""
    return dg.define_asset_job(
        placement.name(BUILD_VERSION),
        selection=dg.AssetSelection.assets(*map(placement.key, [table for table in tables if table not in ON_REQUEST])),
        description="Every asset and check of one dataset version, from the source file to the trainer exports.",
        executor_def=dg.in_process_executor,
        tags=placement.run_tags,
        metadata={PREFIX_METADATA: "/".join(placement.key_prefix)},
    )


def run_trial_job(placement: Placement) -> "UnresolvedAssetJobDefinition":
    """The job that trains a policy in the order of several arms, and shows in the report what came of it."""
    return dg.define_asset_job(
        placement.name(RUN_TRIAL),
        selection=dg.AssetSelection.assets(*map(placement.key, (*ON_REQUEST, "version_report"))),
        description="Trains the policy of [trial] in the order of every arm. It takes hours; killed, it goes on.",
        executor_def=dg.in_process_executor,
        tags=placement.run_tags,
    )


def is_embedded() -> bool:
    """Whether the command line works in somebody else's project."""
    return bool(os.environ.get(DEFINITIONS_VARIABLE))


def load_project() -> Project:
    """The project that SAERL_DEFINITIONS names, else this one.

    Raises:
        SaerlError: `definitions_unusable`.
    """
    place = os.environ.get(DEFINITIONS_VARIABLE) or OWN_DEFINITIONS
    module, _, name = place.partition(":")
    remedy = f"Set {DEFINITIONS_VARIABLE} to the module of your Dagster definitions, such as acme.definitions"
    try:
        found = getattr(importlib.import_module(module), name or "defs")
    except (ImportError, AttributeError) as error:
        raise SaerlError("definitions_unusable", f"{error}.", where=place, remedy=f"{remedy}.") from error
    definitions = found() if callable(found) else found
    if not isinstance(definitions, dg.Definitions):
        problem = f"This is a {type(definitions).__name__} and no Definitions."
        raise SaerlError("definitions_unusable", problem, where=place, remedy=f"{remedy}.")
    jobs = [job for job in definitions.jobs or () if PREFIX_METADATA in (job.metadata or {})]
    if len(jobs) != 1:
        problem = f"{len(jobs)} graphs of saerl_assets are in these definitions."
        remedy = f"{remedy}, with one SaerlComponent or one call of build_definitions()."
        raise SaerlError("definitions_unusable", problem, where=place, remedy=remedy)
    prefix = dict(jobs[0].metadata or {})[PREFIX_METADATA]
    placement = Placement.parse(str(getattr(prefix, "value", prefix)))
    found_resources = definitions.resources or {}
    home, compute = (found_resources.get(placement.resource(name)) for name in ("home", "compute"))
    if not isinstance(home, HomeResource) or not isinstance(compute, ComputeResource):
        problem = f"Its resources {placement.resource('home')!r} and {placement.resource('compute')!r} are replaced."
        remedy = "Leave them as build_definitions made them, and give it what is to be different."
        raise SaerlError("definitions_unusable", problem, where=place, remedy=remedy)
    return Project(definitions, placement, home, compute)


def project_home() -> HomeResource:
    """The home that the command line works in: that of the project's definitions, or of `--home` where they name none.

    Raises:
        SaerlError: `definitions_unusable`, `other_home`.
    """
    if not is_embedded():
        return HomeResource()
    home, asked = load_project().home, os.environ.get("SAERL_HOME")
    if home.root and asked and HomeResource(root=asked).open().root != home.open().root:
        problem = f"The project's definitions keep everything in {home.open().root}."
        raise SaerlError("other_home", problem, where=asked, remedy="Leave --home and SAERL_HOME out.")
    return home


def project_compute() -> ComputeResource:
    """The device and token budget that the project's definitions name."""
    return load_project().compute if is_embedded() else ComputeResource()


def load_job() -> dg.JobDefinition:
    """The job `build_version` with the assets and resources of the project."""
    return load_project().job


def reconstructable_job() -> "ReconstructableJob":
    """The same in a form that Dagster can load again by name."""
    return dg.reconstructable(load_job)


def load_trial_job() -> dg.JobDefinition:
    """The job `run_trial` with the assets and resources of the project."""
    return load_project().job_named(RUN_TRIAL)


def reconstructable_trial_job() -> "ReconstructableJob":
    """The same in a form that Dagster can load again by name."""
    return dg.reconstructable(load_trial_job)
