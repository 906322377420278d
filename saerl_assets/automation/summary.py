"""What a person is told of a version: what a run did, what exists, what to do next.

Belongs here: gathering it from Dagster and the warehouse. Does not belong here: printing, and computing anything.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import dagster as dg

from saerl_assets.automation.jobs import reconstructable_job, reconstructable_trial_job
from saerl_assets.automation.runs import (
    Stage,
    add_partition,
    made_together,
    newest_evaluation,
    open_instance,
    run_stages,
    stages,
)
from saerl_assets.domain.errors import SaerlError
from saerl_assets.resources.console import cause_of
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.trials import MINUTES_TAG
from saerl_assets.storage.catalog import Catalog
from saerl_assets.storage.home import Home
from saerl_assets.storage.inbox import Inbox


@dataclass(frozen=True)
class VersionState:
    """A version as it stands."""

    key: str
    heading: dict[str, object]
    stages: list[Stage]
    checks: list[tuple[str, str, str]]
    details: dict[str, object] = field(default_factory=dict)
    """What is for scripts alone."""

    def heading_lines(self) -> Iterator[str]:
        """Name and value, one a line."""
        width = max(len(name) for name in self.heading)
        return (f"{name:<{width}}  {value}" for name, value in self.heading.items() if value not in (None, ""))

    def stage_lines(self) -> Iterator[tuple[str, str, str, str]]:
        """Asset, rows, when it was made, and whether it is up to date."""
        for stage in self.stages:
            made = datetime.fromtimestamp(stage.made_at, UTC).strftime("%Y-%m-%d %H:%M:%S") if stage.made_at else ""
            state = "up to date" if not stage.is_due else "to be made again" if made else "missing"
            yield stage.asset, _count(stage), made, state

    def check_lines(self) -> list[tuple[str, str, str]]:
        """Asset and check, result, and what it says."""
        return self.checks

    def as_dict(self) -> dict[str, object]:
        """Everything, for scripts."""
        return {
            "key": self.key,
            **self.heading,
            **self.details,
            "stages": [
                {"asset": stage.asset, "rows": _rows(stage), "made_at": stage.made_at, "is_due": stage.is_due}
                for stage in self.stages
            ],
            "checks": [{"check": name, "result": result, "says": says} for name, result, says in self.checks],
        }


@dataclass(frozen=True)
class RunSummary:
    """What one run did."""

    state: VersionState
    seconds: dict[str, float]
    failure: str
    places: list[tuple[str, str]] = field(default_factory=list)

    def stage_lines(self) -> Iterator[tuple[str, str, str, str]]:
        """Asset, rows, seconds, and what was done."""
        for stage in self.state.stages:
            ran = self.seconds.get(stage.asset)
            did = "made" if ran is not None else "due" if stage.is_due else "found"
            yield stage.asset, _count(stage), "" if ran is None else f"{ran:.1f}", did

    def closing_lines(self) -> Iterator[str]:
        """Failed checks, where things are, and the next step."""
        for name, result, says in self.state.checks:
            if result != "passed":
                yield f"{result}: {name}: {says}"
        yield ""
        for name, place in self.places:
            yield f"{name:<10}  {place}"
        key = self.state.key
        yield (
            f"next: saerl run {key}   (resumes)" if self.failure else f"next: saerl show {key}; make ui to look around"
        )

    @property
    def success(self) -> bool:
        """Whether every stage went well."""
        return not self.failure


def run_version(
    home: HomeResource, key: str, *, only: Sequence[str] | None = None, everything: bool = False
) -> RunSummary:
    """Materialises what is due of a version in this process.

    Args:
        home: The home.
        key: The version.
        only: Assets to materialise; by default those that are due.
        everything: Also those that are up to date.

    Raises:
        SaerlError: `unknown_version`, `unknown_asset`. A stage that fails does not raise; the summary names it.
    """
    # The job finds its home by this name, and so do processes that it starts.
    os.environ["SAERL_HOME"] = str(home.open().root)
    job = reconstructable_job()
    definition = job.get_definition()
    registered = _registered_at(home, key)
    with open_instance(home.open().dagster) as instance:
        add_partition(instance, key)
        now = stages(instance, definition, key, registered)
        names = [stage.asset for stage in now]
        unknown = sorted(set(only or ()) - set(names))
        if unknown:
            remedy = f"Assets: {', '.join(names)}."
            raise SaerlError("unknown_asset", f"There is no asset {unknown[0]!r}.", remedy=remedy)
        wanted = (
            made_together(definition, only)
            if only
            else names
            if everything
            else [stage.asset for stage in now if stage.is_due]
        )
        seconds: dict[str, float] = {}
        failure = ""
        if wanted:
            with run_stages(instance, job, key, None if len(wanted) == len(names) else wanted) as result:
                seconds, failure = _timings(instance, result.run_id), _first_failure(result)
        state = _state(home, instance, definition, key, registered)
    return RunSummary(state, seconds, failure, _places(home, key, state))


def record_trial(home: HomeResource, key: str) -> None:
    """Puts what `saerl trial` has trained into the version's tables and its report; trains nothing.

    Raises:
        SaerlError: `trial_not_recorded` with the failure of the run.
    """
    os.environ["SAERL_HOME"] = str(home.open().root)
    with open_instance(home.open().dagster) as instance:
        add_partition(instance, key)
        with run_stages(instance, reconstructable_trial_job(), key, None, {MINUTES_TAG: "0"}) as result:
            failure = _first_failure(result)
    if failure:
        remedy = "The trainings are kept. Mend what it says and call saerl trial again: it records them."
        raise SaerlError("trial_not_recorded", failure, where=key, remedy=remedy)


def describe_version(home: HomeResource, key: str) -> VersionState:
    """What exists of a version."""
    registered = _registered_at(home, key)
    with open_instance(home.open().dagster) as instance:
        state = _state(home, instance, reconstructable_job().get_definition(), key, registered)
    return replace(state, details=_details(home, key, registered))


def _details(home: HomeResource, key: str, registered: datetime) -> dict[str, object]:
    """The version's spec and sources, its manifests, its measures, and where its files are."""
    version, warehouse, root = home.version(key), home.warehouse(), home.open()
    manifests = warehouse.rows("manifests", dataset_version=key).sort("created_at", "manifest_id")
    exports = warehouse.rows("trainer_exports", dataset_version=key).drop("dataset_version")
    measures = warehouse.rows("version_measures", dataset_version=key).drop("dataset_version", "parent")
    report = warehouse.rows("version_report", ["path", "digest", "manifest_id"], dataset_version=key)
    return {
        "home": str(root.root),
        "registered_at": registered.isoformat(),
        "spec_digest": version.digest,
        "spec": version.spec.model_dump(mode="json"),
        "sources": {
            name: {"location": source.location, "digest": source.digest, "n_bytes": source.n_bytes}
            for name, source in version.sources.items()
        },
        "choices": version.choices,
        "manifest": version.current_manifest_id,
        "manifests": manifests.drop("dataset_version").to_dicts(),
        "exports": [row | {"path": str(root.root / row["path"])} for row in exports.to_dicts()],
        "measures": measures.drop("registered_at").row(0, named=True),
        "report": [row | {"path": str(root.root / row["path"])} for row in report.to_dicts()],
    }


def previous_manifest(catalog: Catalog, key: str) -> str:
    """The manifest made before the current one.

    Raises:
        SaerlError: `no_manifest` if there is none before it.
    """
    listed = catalog.warehouse.rows("manifests", dataset_version=key).sort("created_at")["manifest_id"].to_list()
    current = catalog.get(key).current_manifest_id
    if current not in listed or listed.index(current) == 0:
        remedy = f"See what there is: saerl manifest {key}"
        raise SaerlError("no_manifest", "There is no manifest before the current one.", remedy=remedy)
    return str(listed[listed.index(current) - 1])


def remove_files(home: Home, key: str, manifest_ids: Sequence[str]) -> None:
    """Removes a deleted version's exports, report, trials and unfinished work. Artefacts stay: others may share them.

    Its data stays too; what the inbox took for it is put aside.
    """
    Inbox(home).forget(key)
    for manifest_id in manifest_ids:
        shutil.rmtree(home.exports / manifest_id[:16], ignore_errors=True)
    for folder in (home.work(key), home.trials(key)):
        shutil.rmtree(folder, ignore_errors=True)
    (home.reports / f"{key}.html").unlink(missing_ok=True)


def _registered_at(home: HomeResource, key: str) -> datetime:
    home.catalog().get(key)
    rows = home.warehouse().rows("versions", ["registered_at"], dataset_version=key)
    found = rows["registered_at"][0]
    return found.replace(tzinfo=UTC)  # type: ignore[no-any-return]


def _state(
    home: HomeResource, instance: dg.DagsterInstance, job: dg.JobDefinition, key: str, registered: datetime
) -> VersionState:
    version = home.version(key)
    heading: dict[str, object] = {
        "version": key,
        "description": version.spec.description,
        "parent": version.spec.parent,
        "data": version.sources["data"].location,
        "spec": version.digest[:16],
        "manifest": (version.current_manifest_id or "")[:16],
    }
    return VersionState(key, heading, stages(instance, job, key, registered), _checks(instance, job, key, registered))


def _checks(
    instance: dg.DagsterInstance, job: dg.JobDefinition, key: str, registered: datetime
) -> list[tuple[str, str, str]]:
    """The newest result of every check for this version since it was registered."""
    found = []
    graph = job.asset_layer.asset_graph
    for check in sorted(graph.asset_check_keys, key=lambda check: (check.asset_key.path[-1], check.name)):
        evaluation = newest_evaluation(instance, check, key, registered.timestamp())
        if evaluation is not None:
            is_warning = evaluation.severity == dg.AssetCheckSeverity.WARN
            result = "passed" if evaluation.passed else "warning" if is_warning else "failed"
            found.append((f"{check.asset_key.path[-1]}.{check.name}", result, evaluation.description or ""))
    return found


def _timings(instance: dg.DagsterInstance, run_id: str) -> dict[str, float]:
    """Seconds that every asset took: since its step began, or since the asset before it in the same step."""
    made: dict[str, float] = {}
    last: dict[str, float] = {}
    for entry in instance.all_logs(run_id):
        event = entry.dagster_event
        if event is None or event.step_key is None:
            continue
        if event.event_type_value == "STEP_START":
            last[event.step_key] = entry.timestamp
        elif event.is_step_materialization and event.asset_key:
            made[event.asset_key.path[-1]] = entry.timestamp - last[event.step_key]
            last[event.step_key] = entry.timestamp
    return made


def _first_failure(result: dg.JobExecutionResult) -> str:
    """The first step that failed and why: a blocking check's own words, else the innermost error's."""
    said = {
        event.step_key: event.asset_check_evaluation_data.description
        for event in result.all_events
        if event.event_type_value == "ASSET_CHECK_EVALUATION" and not event.asset_check_evaluation_data.passed
    }
    for event in result.all_events:
        if event.event_type_value == "STEP_FAILURE":
            return f"{event.step_key}: {said.get(event.step_key) or cause_of(event)}"
    return "" if result.success else "The run failed before its first stage; see the messages above."


def _places(home: HomeResource, key: str, state: VersionState) -> list[tuple[str, str]]:
    root = home.open()
    warehouse = home.warehouse()
    places = [("home", str(root.root)), ("warehouse", root.warehouse_place)]
    if state.heading["manifest"]:
        current = home.version(key).current_manifest_id
        places.append(("manifest", f"{current}  (saerl sql \"FROM current_batches WHERE dataset_version = '{key}'\")"))
        exports = warehouse.rows("trainer_exports", ["trainer", "path"], dataset_version=key, manifest_id=current)
        places += [(f"for {trainer}", str(root.root / path)) for trainer, path in exports.iter_rows()]
    reports = warehouse.rows("version_report", ["path"], dataset_version=key)
    places += [("report", str(root.root / path)) for (path,) in reports.iter_rows()]
    return places


def _rows(stage: Stage) -> int | None:
    value = stage.metadata.get("dagster/row_count")
    return value if isinstance(value, int) else None


def _count(stage: Stage) -> str:
    rows = _rows(stage)
    return "" if rows is None else f"{rows:,}"
