"""The Dagster UI with the repository's own workspace: a version is materialised through its GraphQL API."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from saerl_assets.automation.jobs import BUILD_VERSION
from saerl_assets.automation.runs import open_instance
from saerl_assets.automation.summary import describe_version
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.run_process import PROCESS_TAG
from saerl_assets_tests.tiny import KEY, N_PROMPTS, TinyWorld

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parent.parent
LONGEST_WAIT_SECONDS = 180.0
SETTINGS = """
telemetry:
  enabled: false
run_coordinator:
  module: dagster.core.run_coordinator
  class: DefaultRunCoordinator
concurrency:
  pools:
    default_limit: 1
    granularity: op
"""
"""The repository's `dagster.yaml` without its queue: the webserver itself starts runs, and no daemon is needed."""

LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
STATUS = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status tags { key value } } } }"
NODES = "{ assetNodes { assetKey { path } description groupName kinds } }"


class Webserver:
    """A running webserver."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"

    def ask(self, query: str, **variables: object) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.address}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
            found: dict[str, Any] = json.load(answer)
        assert "errors" not in found, found
        data: dict[str, Any] = found["data"]
        return data

    def is_up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/server_info", timeout=5) as answer:  # noqa: S310 - loopback
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


@pytest.fixture
def home(tiny_world: TinyWorld, fresh_home: HomeResource) -> HomeResource:
    dagster = Path(fresh_home.root) / "dagster"
    dagster.mkdir(parents=True)
    (dagster / "dagster.yaml").write_text(SETTINGS)
    tiny_world.register(fresh_home)
    return fresh_home


@pytest.fixture
def webserver(home: HomeResource, tmp_path: Path) -> Iterator[Webserver]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "webserver.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "dagster_webserver",
                "--workspace",
                "workspace.yaml",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
            ],
            cwd=CHECKOUT,
            env={**os.environ, "SAERL_HOME": home.root, "DAGSTER_HOME": str(home.open().dagster)},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        found, started = Webserver(port), time.monotonic()
        while not found.is_up():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() - started < LONGEST_WAIT_SECONDS, log.read_text()
            time.sleep(0.3)
        yield found
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_a_version_is_materialised_from_the_ui(webserver: Webserver, home: HomeResource) -> None:
    nodes = webserver.ask(NODES)["assetNodes"]
    assert all(node["description"].startswith("One row per") for node in nodes)
    assert all("duckdb" in node["kinds"] for node in nodes)

    launched = webserver.ask(
        LAUNCH,
        params={
            "selector": {
                "repositoryLocationName": "saerl_assets",
                "repositoryName": "__repository__",
                "pipelineName": BUILD_VERSION,
            },
            "mode": "default",
            "runConfigData": {},
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": KEY}]},
        },
    )["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id, started = launched["run"]["runId"], time.monotonic()
    while (run := webserver.ask(STATUS, id=run_id)["runOrError"])["status"] not in {"SUCCESS", "FAILURE", "CANCELED"}:
        assert time.monotonic() - started < LONGEST_WAIT_SECONDS, run
        time.sleep(1.0)
    assert run["status"] == "SUCCESS"
    assert not [tag["key"] for tag in run["tags"] if "pid" in tag["key"]], "the UI is not filled with what nobody reads"
    with open_instance(home.open().dagster) as instance:
        kept = instance.get_run_by_id(run_id)
    assert kept is not None
    assert PROCESS_TAG in kept.tags, "a run from the UI can be told from a dead one too"

    state = describe_version(home, KEY)
    assert [stage.asset for stage in state.stages if stage.is_due] == []
    assert {result for _, result, _ in state.checks} == {"passed"}
    assert home.warehouse().rows("prompts", dataset_version=KEY).height == N_PROMPTS
    manifest = home.version(KEY).current_manifest_id
    assert manifest is not None
    assert not home.warehouse().rows("batch_manifest", manifest_id=manifest).is_empty()
