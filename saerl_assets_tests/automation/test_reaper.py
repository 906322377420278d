"""Telling a dead run from a slow one, and giving back what it held."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import dagster as dg
import psutil
import pytest
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

from saerl_assets.assets.rooms import GPU_POOL
from saerl_assets.automation.jobs import BUILD_VERSION
from saerl_assets.automation.reaper import dead_runs_sensor, is_dead, reap_dead_runs, reaping
from saerl_assets.automation.runs import open_instance
from saerl_assets.placement import Placement
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.run_process import HOST_TAG, PROCESS_TAG, STARTED_TAG, process_tags

STARTED = dg.DagsterRunStatus.STARTED


@pytest.fixture
def instance(fresh_home: HomeResource) -> Iterator[dg.DagsterInstance]:
    with open_instance(fresh_home.open().dagster) as opened:
        yield opened


def add_run(instance: dg.DagsterInstance, tags: dict[str, str], status: dg.DagsterRunStatus = STARTED) -> dg.DagsterRun:
    return instance.add_run(dg.DagsterRun(job_name=BUILD_VERSION, status=status, tags=tags))


@pytest.fixture
def gone() -> dict[str, str]:
    """Tags of a process that has ended and that was waited for."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = psutil.Process(process.pid).create_time()
        tags = {HOST_TAG: socket.gethostname(), PROCESS_TAG: str(process.pid), STARTED_TAG: f"{started:.2f}"}
        process.kill()
    return tags


def test_this_process_is_alive_and_one_that_ended_is_dead(gone: dict[str, str]) -> None:
    assert not is_dead(dg.DagsterRun(job_name="a", tags=process_tags()))
    assert is_dead(dg.DagsterRun(job_name="a", tags=gone))


def test_another_process_with_the_same_id_is_another_process() -> None:
    earlier = {**process_tags(), STARTED_TAG: f"{psutil.Process().create_time() - 3600:.2f}"}
    assert earlier[PROCESS_TAG] == str(os.getpid())
    assert is_dead(dg.DagsterRun(job_name="a", tags=earlier))


def test_a_process_that_nobody_waited_for_is_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = psutil.Process(process.pid).create_time()
        tags = {HOST_TAG: socket.gethostname(), PROCESS_TAG: str(process.pid), STARTED_TAG: f"{started:.2f}"}
        assert not is_dead(dg.DagsterRun(job_name="a", tags=tags))
        process.kill()
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            pass
        assert is_dead(dg.DagsterRun(job_name="a", tags=tags))


def test_runs_elsewhere_and_runs_without_tags_are_not_judged(gone: dict[str, str]) -> None:
    assert not is_dead(dg.DagsterRun(job_name="a", tags={}))
    assert not is_dead(dg.DagsterRun(job_name="a", tags={**gone, HOST_TAG: "another-host"}))


def test_a_dead_run_fails_and_its_slot_is_free(instance: dg.DagsterInstance, gone: dict[str, str]) -> None:
    dead, alive = add_run(instance, gone), add_run(instance, process_tags())
    finished = add_run(instance, gone, dg.DagsterRunStatus.SUCCESS)
    storage = instance.event_log_storage
    storage.initialize_concurrency_limit_to_default(GPU_POOL)
    assert storage.claim_concurrency_slot(GPU_POOL, dead.run_id, "extraction").is_claimed
    assert not storage.claim_concurrency_slot(GPU_POOL, alive.run_id, "extraction").is_claimed
    assert reap_dead_runs(instance) == [dead.run_id]
    statuses = {run.run_id: run.status for run in instance.get_runs()}
    assert statuses[dead.run_id] == dg.DagsterRunStatus.FAILURE
    assert statuses[alive.run_id] == STARTED
    assert statuses[finished.run_id] == dg.DagsterRunStatus.SUCCESS
    assert storage.claim_concurrency_slot(GPU_POOL, alive.run_id, "extraction").is_claimed
    assert reap_dead_runs(instance) == []


def test_a_dead_run_that_the_code_server_found_first_gives_its_place_back(
    instance: dg.DagsterInstance, gone: dict[str, str]
) -> None:
    dead, alive = add_run(instance, gone), add_run(instance, process_tags())
    storage = instance.event_log_storage
    storage.initialize_concurrency_limit_to_default(GPU_POOL)
    assert storage.claim_concurrency_slot(GPU_POOL, dead.run_id, "extraction").is_claimed
    assert not storage.claim_concurrency_slot(GPU_POOL, alive.run_id, "extraction").is_claimed
    instance.report_run_failed(dead)  # as the code server does: that leaves the place taken
    assert not storage.claim_concurrency_slot(GPU_POOL, alive.run_id, "extraction").is_claimed
    assert reap_dead_runs(instance) == [dead.run_id]
    assert storage.claim_concurrency_slot(GPU_POOL, alive.run_id, "extraction").is_claimed


def test_a_run_that_has_failed_and_still_lives_keeps_its_place(instance: dg.DagsterInstance) -> None:
    alive = add_run(instance, process_tags())
    storage = instance.event_log_storage
    storage.initialize_concurrency_limit_to_default(GPU_POOL)
    assert storage.claim_concurrency_slot(GPU_POOL, alive.run_id, "extraction").is_claimed
    instance.report_run_failed(alive)
    assert reap_dead_runs(instance) == []
    assert storage.get_concurrency_info(GPU_POOL).active_run_ids == {alive.run_id}


def test_a_run_that_was_deleted_gives_its_place_back(instance: dg.DagsterInstance) -> None:
    alive = add_run(instance, process_tags())
    storage = instance.event_log_storage
    storage.initialize_concurrency_limit_to_default(GPU_POOL)
    assert storage.claim_concurrency_slot(GPU_POOL, "no-such-run", "extraction").is_claimed
    assert reap_dead_runs(instance) == ["no-such-run"]
    assert storage.claim_concurrency_slot(GPU_POOL, alive.run_id, "extraction").is_claimed


def test_a_step_that_was_not_told_of_a_free_place_is_told(instance: dg.DagsterInstance) -> None:
    late = add_run(instance, process_tags())
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    storage.initialize_concurrency_limit_to_default(GPU_POOL)
    # It saw the place taken, which was given back before it had lined up.
    storage.add_pending_step(GPU_POOL, late.run_id, "extraction", should_assign=False)
    assert not storage.claim_concurrency_slot(GPU_POOL, late.run_id, "extraction").is_claimed
    assert reap_dead_runs(instance) == []
    assert storage.claim_concurrency_slot(GPU_POOL, late.run_id, "extraction").is_claimed


def test_whoever_waits_for_a_run_that_dies_meanwhile_gets_its_place(
    instance: dg.DagsterInstance, gone: dict[str, str]
) -> None:
    alive = add_run(instance, process_tags())
    storage = instance.event_log_storage
    storage.initialize_concurrency_limit_to_default(GPU_POOL)
    assert isinstance(storage, SqlEventLogStorage)
    with reaping(instance, every_seconds=0.05):
        dead = add_run(instance, gone)
        storage.add_pending_step(GPU_POOL, dead.run_id, "extraction", should_assign=True)
        give_up_at = time.monotonic() + 60
        while not storage.claim_concurrency_slot(GPU_POOL, alive.run_id, "extraction").is_claimed:
            assert time.monotonic() < give_up_at
            time.sleep(0.05)


def test_the_sensor_reaps_and_says_whom(instance: dg.DagsterInstance, gone: dict[str, str]) -> None:
    dead = add_run(instance, gone)
    context, dead_runs = dg.build_sensor_context(instance=instance), dead_runs_sensor(Placement())
    first, second = dead_runs(context), dead_runs(context)
    assert isinstance(first, dg.SkipReason)
    assert isinstance(second, dg.SkipReason)
    assert dead.run_id in str(first.skip_message)
    assert second.skip_message == "No dead runs."


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_clock_that_jumps_makes_no_run_look_dead(monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    tags = process_tags()
    if ":" not in tags[STARTED_TAG]:
        pytest.skip("this system tells by the clock alone when a process started")
    started = psutil.Process().create_time()
    # what psutil says after the jump: it counts from when the machine started, which it works out from the clock
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: started + 3600 * hours)
    assert not is_dead(dg.DagsterRun(job_name="a", tags=tags))
    boot, _, ticks = tags[STARTED_TAG].partition(":")
    for other in (f"{boot}:{int(ticks) + 1}", f"another-boot:{ticks}"):
        assert is_dead(dg.DagsterRun(job_name="a", tags={**tags, STARTED_TAG: other}))
