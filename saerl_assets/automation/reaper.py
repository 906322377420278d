"""Runs whose process died: marked failed, their places in pools given back.

Belongs here: finding and ending them. Does not belong here: running anything again.

A process that is killed inside a pool leaves its run STARTED and its place taken, and every later run then waits for
that place for ever. So a run records its host, its process id and when that process started; a process with the same
id that started at another time is another process. Dagster's code server may find the dead process first: it marks
the run failed and leaves the place taken, so places of runs that have ended are looked for as well. And a step that
lines up in the moment in which the last place gets free may not be told of it: free places are offered again.
"""

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator

import dagster as dg
import psutil
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

from saerl_assets.placement import Placement
from saerl_assets.resources.run_process import HOST_TAG, PROCESS_TAG, STARTED_TAG, is_same_process

_UNFINISHED = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def is_dead(run: dg.DagsterRun) -> bool:
    """Whether the run's process was on this host and is gone. Runs elsewhere, or without the tags, are not judged."""
    if run.tags.get(HOST_TAG) != socket.gethostname() or PROCESS_TAG not in run.tags:
        return False
    try:
        process = psutil.Process(int(run.tags[PROCESS_TAG]))
        same = is_same_process(process, run.tags[STARTED_TAG])
        return not same or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def reap_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Ends every dead run, frees the places in pools that dead runs hold, and returns the ids of these runs."""
    return [*_end_dead_runs(instance), *_free_places(instance)]


@contextlib.contextmanager
def reaping(instance: dg.DagsterInstance, *, every_seconds: float = 30.0) -> Iterator[None]:
    """Looks for dead runs at once, and again and again while the block runs: it may wait for what one of them holds."""
    reap_dead_runs(instance)
    ended = threading.Event()

    def reap() -> None:
        while not ended.wait(every_seconds):
            try:
                reap_dead_runs(instance)
            except Exception:
                logging.getLogger(__name__).exception("Could not look for dead runs; it is tried again.")

    thread = threading.Thread(target=reap, name="saerl-reaper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _end_dead_runs(instance: dg.DagsterInstance) -> Iterator[str]:
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)):
        if is_dead(run):
            process = run.tags[PROCESS_TAG]
            instance.report_run_failed(run, f"Its process {process} is gone; run the version again to resume it.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            yield run.run_id


def _free_places(instance: dg.DagsterInstance) -> Iterator[str]:
    """Frees what runs hold that somebody else has marked as ended, and offers free places to who waits."""
    storage = instance.event_log_storage
    for run_id in sorted(storage.get_concurrency_run_ids()):
        run = instance.get_run_by_id(run_id)
        if run is None or (run.is_finished and is_dead(run)):
            storage.free_concurrency_slots_for_run(run_id)
            yield run_id
    if isinstance(storage, SqlEventLogStorage):
        for pool, line in storage.get_concurrency_infos(sorted(storage.get_concurrency_keys())).items():
            if line.pending_steps and storage.has_unassigned_slots(pool):
                storage.assign_pending_steps([pool])


def dead_runs_sensor(placement: Placement) -> dg.SensorDefinition:
    """The sensor that looks for them twice a minute."""

    @dg.sensor(
        name=placement.name("dead_runs"),
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Marks runs whose process died as failed and frees their places in pools.",
    )
    def dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        ended = reap_dead_runs(context.instance)
        return dg.SkipReason(f"Ended {', '.join(ended)}." if ended else "No dead runs.")

    return dead_runs
