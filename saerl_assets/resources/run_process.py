"""Which process a run lives in, as tags of the run.

Belongs here: naming this process. Does not belong here: judging whether one is dead, which the reaper does.
"""

import multiprocessing
import os
import socket

import dagster as dg
import psutil

HOST_TAG = "saerl/host"
PROCESS_TAG = "saerl/pid"
STARTED_TAG = "saerl/process_started"


def process_tags(pid: int | None = None) -> dict[str, str]:
    """Tags that name a process, by default this one: its host, its id, and when it started, as ids are used again."""
    process = psutil.Process(pid)
    started = f"{process.create_time():.2f}"
    return {HOST_TAG: socket.gethostname(), PROCESS_TAG: str(process.pid), STARTED_TAG: started}


def tag_run(context: dg.InitResourceContext) -> None:
    """Tags the run that a resource is set up for with its process, unless whoever started it has done so."""
    run = context.run
    if run is not None and context.instance is not None and PROCESS_TAG not in run.tags:
        context.instance.add_run_tags(run.run_id, process_tags(_process_of_run(context.instance, run.run_id)))


def _process_of_run(instance: dg.DagsterInstance, run_id: str) -> int:
    """The process that lives as long as the run: this one, or its parent where every step has a process of its own.

    Dagster's executor of several processes notes its id in the run before it starts the first.
    """
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None:
        return os.getpid()
    noted = set()
    for record in instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT).records:
        event = record.event_log_entry.dagster_event
        metadata = event.engine_event_data.metadata if event else {}
        noted |= {str(value.value) for name, value in metadata.items() if name == "pid"}
    return parent.pid if str(parent.pid) in noted else os.getpid()
