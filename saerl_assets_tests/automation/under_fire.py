"""Webserver, daemon and runs over a home, killed at random moments and started again as a supervisor would.

Belongs here: the services, asking them for a run, killing. Does not belong here: what must hold afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import yaml

from saerl_assets.assets.rooms import GPU_POOL
from saerl_assets.automation.jobs import BUILD_VERSION
from saerl_assets.automation.reaper import is_dead, reap_dead_runs
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.run_process import PROCESS_TAG, STARTED_TAG, is_same_process
from saerl_assets_tests.ui.serving import CHECKOUT, answers, free_port

VICTIMS = ("step", "daemon", "webserver")
STARTS_APART = 2.0
"""The longest time between one kill and the next, in starts of the services: with less they would hardly ever be up."""
LONGEST_START_SECONDS = 180.0
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
LAUNCH = """
mutation ($job: String!, $tags: [ExecutionTag!]!) {
  launchRun(executionParams: {
    selector: {repositoryLocationName: "saerl_assets", repositoryName: "__repository__", jobName: $job}
    runConfigData: {}
    executionMetadata: {tags: $tags}
  }) { __typename ... on PythonError { message } ... on RunConfigValidationInvalid { errors { message } } }
}
"""


def hurry(home: HomeResource) -> None:
    """Has the home's Dagster see sooner what died, so that a test need not wait for minutes."""
    file = home.open().create().dagster / "dagster.yaml"
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    settings["run_monitoring"] |= {"start_timeout_seconds": 20, "poll_interval_seconds": 5}
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")


@dataclass
class Services:
    """The webserver and the daemon of one home, each in a process that can be killed and started again."""

    home: HomeResource
    log: Path
    port: int = field(default_factory=free_port)
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Starts `daemon` or `webserver`."""
        command = {
            "daemon": ["dagster-daemon", "run"],
            "webserver": ["dagster-webserver", "--host", "127.0.0.1", "--port", str(self.port)],
        }[name]
        surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "SAERL_HOME": str(self.home.open().root)}
        with self.log.open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [str(Path(sys.executable).parent / command[0]), *command[1:], "--workspace", "workspace.yaml"],
                cwd=CHECKOUT,
                env=surroundings | {"DAGSTER_HOME": str(self.home.open().dagster)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> float:
        """Waits until the webserver answers; returns the seconds that this took."""
        begun = time.monotonic()
        give_up_at = begun + LONGEST_START_SECONDS
        while not answers(f"http://127.0.0.1:{self.port}"):
            assert time.monotonic() < give_up_at, self.log.read_text(errors="replace")[-4000:]
            time.sleep(0.3)
        return time.monotonic() - begun

    def kill(self, name: str) -> None:
        """SIGKILL, and the same service again at once."""
        self._processes[name].kill()
        self._processes[name].wait()
        self.start(name)

    def launch(self, key: str) -> bool:
        """Asks the webserver for a build of a version; whether it has taken it."""
        tags = [{"key": "dagster/partition", "value": key}]
        document = {"query": LAUNCH, "variables": {"job": BUILD_VERSION, "tags": tags}}
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql",
            data=json.dumps(document).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310 - loopback
                told: dict[str, Any] = json.load(answer)
        except (urllib.error.URLError, ConnectionError, TimeoutError, json.JSONDecodeError):
            return False  # it was killed, and is starting
        assert told["data"]["launchRun"]["__typename"] in {"LaunchRunSuccess", "PythonError"}, told
        return bool(told["data"]["launchRun"]["__typename"] == "LaunchRunSuccess")

    def end(self) -> None:
        """Ends both with every process that they have started."""
        for process in self._processes.values():
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                begun = psutil.Process(process.pid).children(recursive=True)
                os.killpg(process.pid, signal.SIGTERM)
                for left in psutil.wait_procs(begun, timeout=20)[1]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        left.kill()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def fire(
    services: Services,
    instance: dg.DagsterInstance,
    keys: Sequence[str],
    *,
    longest: float,
    n_kills: int,
    seed: int,
) -> dict[str, int]:
    """Kills at random moments while runs of all versions are asked for again and again.

    A run is asked for where none of a version is under way, as a person would who sees that it has failed. Dead runs
    are ended first, as `saerl run` does: the daemon, which has a sensor for it, is killed too often to get that far.

    Args:
        services: Started ones.
        instance: The home's.
        keys: The versions.
        longest: Seconds from one kill to the next, at most.
        n_kills: How many kills there are to be.
        seed: Of victims and moments.

    Returns:
        Kills by victim.
    """
    chance = random.Random(seed)  # noqa: S311 - moments, no secrets
    kills = dict.fromkeys(VICTIMS, 0)
    while sum(kills.values()) < n_kills:
        reap_dead_runs(instance)
        under_way = {run.tags.get("dagster/partition") for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))}
        for key in set(keys) - under_way:
            services.launch(key)
        time.sleep(chance.uniform(0.0, longest))
        victim = chance.choice(VICTIMS)
        if victim != "step":
            services.kill(victim)
        elif not kill_a_run(instance, chance):
            continue
        kills[victim] += 1
    return kills


def kill_a_run(instance: dg.DagsterInstance, chance: random.Random) -> bool:
    """SIGKILL to the process of a run that is in the middle of a step; whether there was one."""
    runs = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    for run in sorted(runs, key=lambda _: chance.random()):
        with contextlib.suppress(psutil.NoSuchProcess, KeyError):
            process = psutil.Process(int(run.tags[PROCESS_TAG]))
            if is_same_process(process, run.tags[STARTED_TAG]):
                process.kill()
                return True
    return False


def wait_for_quiet(instance: dg.DagsterInstance, *, seconds: float) -> None:
    """Waits until no run is under way: each has ended, or was found dead and marked as failed."""
    give_up_at = time.monotonic() + seconds
    while runs := instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        assert time.monotonic() < give_up_at, "\n".join(tell(instance, run) for run in runs)
        time.sleep(1.0)


def tell(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """What is known of a run that does not end: its process, the last that it said, and who holds the pool."""
    last = [record.event_log_entry.user_message for record in instance.get_records_for_run(run.run_id).records][-5:]
    pool = instance.event_log_storage.get_concurrency_info(GPU_POOL)
    state = "dead" if is_dead(run) else "alive"
    return f"{run.run_id} {run.status} {state} {dict(run.tags)}\n  last: {last}\n  pool: {pool}"
