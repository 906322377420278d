"""Runs whose process died: marked failed, their pool slots given back.

Belongs here: finding and ending them. Does not belong here: running anything again.

A process that is killed inside a pool leaves its run STARTED and its slot taken, and every later run then waits for
that slot for ever. So a run records its host, its process id and when that process started; a process with the same
id that started at another time is another process.
"""

import socket
from collections.abc import Iterator

import dagster as dg
import psutil

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
    """Ends every dead run and frees its pool slots; returns their ids."""
    return list(_reap(instance))


def _reap(instance: dg.DagsterInstance) -> Iterator[str]:
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)):
        if is_dead(run):
            process = run.tags[PROCESS_TAG]
            instance.report_run_failed(run, f"Its process {process} is gone; run the version again to resume it.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            yield run.run_id


def dead_runs_sensor(placement: Placement) -> dg.SensorDefinition:
    """The sensor that looks for them twice a minute."""

    @dg.sensor(
        name=placement.name("dead_runs"),
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Marks runs whose process died as failed and frees their pool slots.",
    )
    def dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        ended = reap_dead_runs(context.instance)
        return dg.SkipReason(f"Ended {', '.join(ended)}." if ended else "No dead runs.")

    return dead_runs
