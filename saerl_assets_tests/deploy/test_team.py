"""Two teams' code locations, a daemon and a webserver on PostgreSQL, by the files of `deploy/`: both build a version.

Only hosts and ports are not those of the containers.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
import yaml

from saerl_assets.automation.runs import open_instance
from saerl_assets.resources.home import HomeResource
from saerl_assets_tests.servers import free_port, running_postgres, why_no_postgres
from saerl_assets_tests.tiny import MADE_BY_A_RUN, N_PROMPTS, TinyWorld

pytestmark = pytest.mark.slow

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
BINARIES = Path(sys.executable).parent
TEAMS = ("math", "code")
LONGEST_SECONDS = 480.0
ASK = """
mutation ($job: String!, $location: String!, $tags: [ExecutionTag!]!) {
  launchRun(executionParams: {
    selector: {repositoryLocationName: $location, repositoryName: "__repository__", jobName: $job}
    executionMetadata: {tags: $tags}
  }) { __typename ... on PythonError { message } ... on PipelineNotFoundError { message } }
}
"""


@contextmanager
def service(command: list[str], surroundings: Mapping[str, str], log: Path) -> Iterator[None]:
    """A process that is ended with all that it has started."""
    with log.open("ab") as out:
        started = subprocess.Popen(
            [str(BINARIES / command[0]), *command[1:]], env=surroundings, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield
    finally:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            begun = psutil.Process(started.pid).children(recursive=True)
            os.killpg(started.pid, signal.SIGTERM)
            for left in psutil.wait_procs(begun, timeout=20)[1]:
                left.kill()
        started.wait(20)


def wait_for(port: int, give_up_at: float, log: Path) -> None:
    """Waits until somebody listens."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
        except OSError:
            assert time.monotonic() < give_up_at, log.read_text(errors="replace")[-4000:]
            time.sleep(0.5)
        else:
            return


def launch(port: int, team: str, key: str) -> str:
    """Asks the webserver for a build; what it says, empty where it does not answer yet."""
    tags = [{"key": "dagster/partition", "value": key}]
    variables = {"job": f"{team}_build_version", "location": team, "tags": tags}
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        data=json.dumps({"query": ASK, "variables": variables}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310 - loopback
            said: dict[str, Any] = json.load(answer)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return ""
    return str(said["data"]["launchRun"]["__typename"])


def builds(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The runs that were asked for; sensors may have started others meanwhile."""
    return [run for run in instance.get_runs() if run.job_name.endswith("_build_version")]


def teams_workspace(folder: Path) -> tuple[Path, dict[str, int]]:
    """The workspace of `deploy/` on ports of this machine, and the port of each team."""
    ports = {team: free_port() for team in TEAMS}
    workspace = yaml.safe_load((DEPLOY / "workspace.yaml").read_text(encoding="utf-8"))
    for each in workspace["load_from"]:
        place = each["grpc_server"]
        place |= {"host": "127.0.0.1", "port": ports[place["host"]]}
    path = folder / "workspace.yaml"
    path.write_text(yaml.safe_dump(workspace), encoding="utf-8")
    return path, ports


@dataclass(frozen=True)
class Team:
    """What a code location is given."""

    name: str
    folder: Path
    lake: str

    @property
    def key(self) -> str:
        """Its version."""
        return f"{self.name}-v1"

    @property
    def data_path(self) -> str:
        """Where its tables' files are."""
        return str(self.folder / "tables" / self.name)

    @property
    def home(self) -> HomeResource:
        """Its home, with its lake."""
        return HomeResource(root=str(self.folder / self.name), lake=self.lake, data_path=self.data_path)

    @property
    def surroundings(self) -> dict[str, str]:
        """The variables of its processes."""
        return {
            **os.environ,
            "SAERL_TEAM": self.name,
            "SAERL_HOME": str(self.folder / self.name),
            "SAERL_WAREHOUSE": self.lake,
            "SAERL_DATA_PATH": self.data_path,
            "SAERL_DEFINITIONS": "definitions",
            "PYTHONPATH": str(DEPLOY),
        }

    def register(self, spec: Path) -> None:
        """As a person does."""
        command = [str(BINARIES / "saerl"), "register", str(spec)]
        done = subprocess.run(command, env=self.surroundings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def hold(self, instance: dg.DagsterInstance) -> None:
        """Asserts that its version, and no other, is whole: in Dagster's records and in its lake."""
        made = {
            table
            for table in MADE_BY_A_RUN
            if instance.get_materialized_partitions(dg.AssetKey([self.name, table])) == {self.key}
        }
        assert made == MADE_BY_A_RUN
        warehouse = self.home.warehouse()
        assert set(warehouse.rows("versions")["dataset_version"]) == {self.key}
        assert warehouse.rows("prompts", dataset_version=self.key).height == N_PROMPTS
        planned = warehouse.rows("batch_manifest", dataset_version=self.key)["manifest_id"].unique().to_list()
        assert planned == [self.home.version(self.key).current_manifest_id]
        assert not (self.folder / self.name / "warehouse.duckdb").exists(), "rows are in the lake alone"


def test_versions_are_built_from_both_code_locations(
    tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why := why_no_postgres():
        pytest.skip(why)
    dagster_home, log = tmp_path / "dagster", tmp_path / "log"
    dagster_home.mkdir()
    shutil.copy(DEPLOY / "dagster.yaml", dagster_home)
    workspace, ports = teams_workspace(tmp_path)
    with running_postgres() as server, contextlib.ExitStack() as running:
        server.database("dagster")
        told = {"USER": "saerl", "PASSWORD": server.password, "HOST": "127.0.0.1", "PORT": server.port, "DB": "dagster"}
        for name, value in told.items():
            monkeypatch.setenv(f"SAERL_DAGSTER_PG_{name}", str(value))
        monkeypatch.setenv("SAERL_DAGSTER_LOGS", str(tmp_path / "logs"))
        monkeypatch.setenv("PGPASSWORD", server.password)
        monkeypatch.setenv("DAGSTER_HOME", str(dagster_home))
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        teams = [Team(name, tmp_path, f"ducklake:postgres:{server.database(name)}") for name in TEAMS]
        for number, team in enumerate(teams):
            team.register(tiny_world.write_spec(team.key, seed=number))
            command = ["dagster", "api", "grpc", "--module-name", "definitions", "--host", "127.0.0.1", "--port"]
            running.enter_context(service([*command, str(ports[team.name])], team.surroundings, log))
        give_up_at = time.monotonic() + LONGEST_SECONDS
        for team in teams:  # as the Compose file does: a location that is not there at first is not looked for again
            wait_for(ports[team.name], give_up_at, log)
        port, where = free_port(), ["--workspace", str(workspace)]
        web = ["dagster-webserver", *where, "--host", "127.0.0.1", "--port", str(port)]
        running.enter_context(service(web, os.environ, log))
        running.enter_context(service(["dagster-daemon", "run", *where], os.environ, log))

        for team in teams:
            while (said := launch(port, team.name, team.key)) != "LaunchRunSuccess":
                assert time.monotonic() < give_up_at, (said, log.read_text(errors="replace")[-4000:])
                time.sleep(1)
        with open_instance(dagster_home) as instance:
            assert "Postgres" in type(instance.event_log_storage).__name__
            while not all(run.is_finished for run in builds(instance)):
                assert time.monotonic() < give_up_at, log.read_text(errors="replace")[-4000:]
                time.sleep(2)
            assert {(run.job_name, run.status) for run in builds(instance)} == {
                (f"{team.name}_build_version", dg.DagsterRunStatus.SUCCESS) for team in teams
            }, log.read_text(errors="replace")[-4000:]
            for team in teams:
                team.hold(instance)
            printed = {file.parts[-3] for file in (tmp_path / "logs").rglob("*.err")}
            asked = {run.run_id for run in builds(instance)}
            assert printed >= asked, "what steps print is where the webserver looks"
