"""The graph in somebody else's Dagster project: beside its own definitions, under a prefix, built and looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from saerl_assets.automation.jobs import DEFINITIONS_VARIABLE, Project, load_project, project_home
from saerl_assets.automation.runs import open_instance
from saerl_assets.cli import EXIT_USER_ERROR, main
from saerl_assets.definitions import build_definitions
from saerl_assets.domain.errors import SaerlError
from saerl_assets.resources.run_process import PROCESS_TAG
from saerl_assets_tests.assets.graph_snapshot import asset_graph
from saerl_assets_tests.conftest import isolate
from saerl_assets_tests.embedding.project import PREFIX, write_project
from saerl_assets_tests.tiny import KEY, MADE_BY_A_RUN, N_PROMPTS, TinyWorld

# Dagster's loader of components makes asset checks anew with a parameter that Dagster itself calls beta.
pytestmark = pytest.mark.filterwarnings("ignore:Parameter `execution_type` of function `AssetsDefinition")

PARTS = PREFIX.split("/")
OURS = "team_rl"
TABLES = frozenset(asset_graph())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("acme"))


@pytest.fixture(scope="module")
def built(folder: Path, tiny_world: TinyWorld) -> Iterator[dict[str, Any]]:
    """The project with the tiny version in it, registered and built on the command line; what the verbs printed."""
    with pytest.MonkeyPatch.context() as patch:
        enter(patch, folder)
        said = {verb[0]: saerl(*verb) for verb in (("register", str(tiny_world.write_spec())), ("run", KEY))}
        said["show"] = json.loads(saerl("show", KEY, "--json"))
    yield said
    for name in [name for name in sys.modules if name.partition(".")[0] == "acme"]:
        del sys.modules[name]


@pytest.fixture
def project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    enter(monkeypatch, folder)
    return load_project()


def enter(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """The environment that a person sets before working in the project."""
    isolate(patch, folder / "environment")
    patch.delenv("SAERL_HOME")
    patch.setenv("DAGSTER_HOME", str(folder / "dagster"))
    (folder / "dagster").mkdir(exist_ok=True)
    (folder / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    patch.setenv(DEFINITIONS_VARIABLE, "acme.definitions")
    patch.syspath_prepend(str(folder))


def saerl(*words: str, exit_code: int = 0) -> str:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == exit_code, f"{done.output}\n{done.exception!r}"
    return done.stdout if exit_code == 0 else done.output


# ---------------------------------------------------------------- what there is


def test_the_graph_stands_beside_the_projects_own_assets(project: Project) -> None:
    graph = project.definitions.resolve_asset_graph()
    keys = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert keys == {"prompts", "training_steps", *(f"{PREFIX}/{table}" for table in TABLES)}
    assert graph.get(dg.AssetKey("training_steps")).parent_keys == {dg.AssetKey([*PARTS, "batch_manifest"])}
    assert {graph.get(dg.AssetKey([*PARTS, table])).group_name for table in TABLES} == {
        f"{OURS}_{group}" for group in ("data", "features", "signals", "batches", "records")
    }
    ours = [dg.AssetKey([*PARTS, table]) for table in TABLES]
    assert {key for each in ours for key in graph.get(each).parent_keys} <= set(ours), "no dependency lost its prefix"
    looked_at = {key for check in graph.asset_check_keys for key in graph.get(check).parent_entity_keys}
    assert looked_at <= set(ours)
    assert graph.asset_check_keys
    assert graph.get(dg.AssetKey([*PARTS, "prompt_features"])).pools == {"a100"}
    dg.Definitions.validate_loadable(project.definitions)


def test_nothing_of_the_project_is_replaced(project: Project) -> None:
    repository = project.definitions.get_repository_def()
    assert set(project.definitions.resources or {}) == {
        *("home", "kept", "io_manager"),
        *(f"{OURS}_{name}" for name in ("home", "compute", "tables")),
    }
    assert project.definitions.executor is dg.multiprocess_executor
    assert not project.definitions.loggers
    names = {*repository.job_names, *(sensor.name for sensor in repository.sensor_defs)}
    assert {name for name in names if not name.startswith((OURS, "__"))} == {"build_version"}
    assert {f"{OURS}_{name}" for name in ("build_version", "dead_runs", "refresh", "failed_runs")} <= names
    assert "default_automation_condition_sensor" not in names, "the project's own must not start our runs"
    of_theirs = repository.get_job("build_version").asset_layer.asset_graph.materializable_asset_keys
    assert of_theirs == {dg.AssetKey("prompts")}


def test_what_starts_runs_is_off(project: Project) -> None:
    sensors = {sensor.name: sensor.default_status for sensor in project.definitions.get_repository_def().sensor_defs}
    harmless = {f"{OURS}_dead_runs", f"{OURS}_failed_runs"}
    running = {name for name, status in sensors.items() if status == dg.DefaultSensorStatus.RUNNING}
    assert running == harmless
    schedules = project.definitions.get_repository_def().schedule_defs
    assert {schedule.default_status for schedule in schedules} <= {dg.DefaultScheduleStatus.STOPPED}


def test_by_import_it_merges_with_definitions_that_have_everything_of_their_own() -> None:
    @dg.asset
    def prompts() -> int:
        return 1

    own = dg.Definitions(
        assets=[prompts],
        resources={"home": "theirs", "compute": "theirs", "io_manager": dg.mem_io_manager},
        executor=dg.multiprocess_executor,
        loggers={"console": dg.colored_console_logger},
    )
    for placed in ({"key_prefix": "rl"}, {"key_prefix": ["team", "rl"], "group_name": "rl", "pool": "a100"}):
        merged = dg.Definitions.merge(own, build_definitions(**placed))
        dg.Definitions.validate_loadable(merged)
        assert len(merged.resolve_all_asset_keys()) == len(TABLES) + 1


# ---------------------------------------------------------------- building a version there


def test_the_command_line_builds_a_version_in_the_projects_own_dagster(
    built: dict[str, Any], project: Project, folder: Path
) -> None:
    assert "FAILED" not in built["run"]
    stages = {stage["asset"]: stage for stage in built["show"]["stages"]}
    assert set(stages) == MADE_BY_A_RUN
    assert not any(stage["is_due"] for stage in stages.values())
    assert {check["result"] for check in built["show"]["checks"]} == {"passed"}
    assert (folder / "data" / "prompts.duckdb").is_file()
    assert not (folder / ".saerl" / "warehouse.duckdb").exists()
    assert (folder / ".saerl" / "reports" / f"{KEY}.html").stat().st_size > 10_000
    with open_instance(folder / "nowhere") as instance:
        assert instance.get_dynamic_partitions("dataset_version") == [KEY]
        key = dg.AssetKey([*PARTS, "batch_manifest"])
        assert instance.get_materialized_partitions(key) == {KEY}
    assert project.home.warehouse().rows("prompts", dataset_version=KEY).height == N_PROMPTS


def test_a_second_run_finds_everything(built: dict[str, Any], project: Project) -> None:  # noqa: ARG001
    again = saerl("run", KEY)
    assert "made" not in again.split()
    assert f"{KEY}" in saerl("versions")
    assert "tokens" in saerl("plan", KEY)
    assert saerl("sql", "SELECT count(*) AS n FROM prompts", "--format", "json").strip() == f'[{{"n":{N_PROMPTS}}}]'


def test_one_asset_is_named_without_its_prefix(built: dict[str, Any], project: Project) -> None:  # noqa: ARG001
    said = saerl("run", KEY, "--only", "cluster_drift")
    made = {line.split()[0] for line in said.splitlines() if line.split()[-1:] == ["made"]}
    assert made == {"cluster_drift", "version_drift"}
    assert "[unknown_asset]" in saerl("run", KEY, "--only", f"{PREFIX}/labels", exit_code=EXIT_USER_ERROR)
    assert "up to date" in saerl("show", KEY)
    saerl("run", KEY)


def test_their_asset_takes_the_manifest_as_its_input(built: dict[str, Any], project: Project) -> None:  # noqa: ARG001
    job = project.definitions.resolve_implicit_global_asset_job_def()
    with open_instance(Path()) as instance:
        done = job.execute_in_process(
            instance=instance, partition_key=KEY, asset_selection=[dg.AssetKey("training_steps")]
        )
        (made,) = done.asset_materializations_for_node("training_steps")
    manifest = project.home.warehouse().rows("manifests", dataset_version=KEY)
    assert made.metadata["n_steps"].value == manifest["n_steps"][0] > 0


# ---------------------------------------------------------------- steps with a process each


@pytest.mark.slow
def test_a_run_with_a_process_for_each_step_is_not_taken_for_dead(
    built: dict[str, Any],  # noqa: ARG001
    project: Project,  # noqa: ARG001
    folder: Path,
) -> None:
    selected = " or ".join(f'key:"{PREFIX}/{table}"' for table in ("versions", "labels"))
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "acme.definitions"]
    log = folder / "materialize.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, "--select", selected, "--partition", KEY],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        assert process.wait() == 0, log.read_text()[-3000:]
    with open_instance(Path()) as instance:
        (run,) = instance.get_runs(limit=1)
        events = [entry.message for entry in instance.all_logs(run.run_id)]
    assert run.tags[PROCESS_TAG] == str(process.pid), "the process of the run, not that of its first step"
    assert any("multiprocess executor" in message for message in events), "this is about runs of many processes"


# ---------------------------------------------------------------- dg


@pytest.mark.slow
@pytest.mark.parametrize("what", ["yaml", "defs"])
def test_dg_finds_nothing_wrong(what: str, folder: Path, project: Project) -> None:  # noqa: ARG001
    done = dagster_dg(folder, "check", what)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_dg_refuses_a_misspelt_attribute_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = write_project(tmp_path / "other")
    enter(monkeypatch, other)
    yaml = other / "acme" / "defs" / "saerl" / "defs.yaml"
    yaml.write_text(yaml.read_text().replace("token_budget", "token_budgets"))
    done = dagster_dg(other, "check", "yaml")
    assert done.returncode == 1
    assert "token_budgets" in done.stdout + done.stderr


@pytest.mark.slow
def test_dg_lists_the_component_with_its_schema(folder: Path, project: Project) -> None:  # noqa: ARG001
    listed = dagster_dg(folder, "list", "components", "--json")
    assert listed.returncode == 0, listed.stderr
    assert "saerl_assets.SaerlComponent" in {each["key"] for each in json.loads(listed.stdout)["items"]}
    told = dagster_dg(folder, "utils", "inspect-component", "saerl_assets.SaerlComponent", "--defs-yaml-json-schema")
    assert told.returncode == 0, told.stderr
    attributes = json.loads(told.stdout)["properties"]["attributes"]["properties"]
    assert set(attributes) == {
        *("home", "warehouse", "data_path", "bucket", "compute"),
        *("key_prefix", "group_name", "pool", "automation", "on_failure"),
    }
    assert all(each.get("description") for each in attributes.values())


def dagster_dg(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("dg")), *words]
    environment = {**os.environ, "PYTHONPATH": str(folder), "DAGSTER_DG_NO_UPDATE_CHECK": "1"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)


# ---------------------------------------------------------------- what can be wrong


def refused(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(DEFINITIONS_VARIABLE, name)
    with pytest.raises(SaerlError) as raised:
        load_project()
    assert raised.value.code == "definitions_unusable"
    return str(raised.value)


def test_definitions_that_cannot_be_used_are_refused(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    assert "No module named 'nowhere'" in refused("nowhere", monkeypatch)
    assert "has no attribute 'other'" in refused("acme.definitions:other", monkeypatch)
    assert "is a str" in refused("acme.definitions:__name__", monkeypatch)
    assert "0 graphs" in refused("acme.defs.training", monkeypatch)


def test_another_home_than_the_projects_is_refused(
    project: Project,  # noqa: ARG001
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SAERL_HOME", str(tmp_path))
    with pytest.raises(SaerlError, match=r"\.saerl.*\[other_home\]"):
        project_home()


def test_a_project_without_a_dagster_home_is_refused(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    monkeypatch.delenv("DAGSTER_HOME")
    with pytest.raises(SaerlError, match=r"\[no_dagster_home\]"):
        open_instance(Path())
