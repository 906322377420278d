"""Which process a run lives in, as tags of the run.

Belongs here: naming this process. Does not belong here: judging whether one is dead, which the reaper does.
"""

import os
import socket

import dagster as dg
import psutil

HOST_TAG = "saerl/host"
PROCESS_TAG = "saerl/pid"
STARTED_TAG = "saerl/process_started"


def process_tags() -> dict[str, str]:
    """Tags that name this process: its host, its id, and when it started, because ids are used again."""
    started = psutil.Process().create_time()
    return {HOST_TAG: socket.gethostname(), PROCESS_TAG: str(os.getpid()), STARTED_TAG: f"{started:.2f}"}


def tag_run(context: dg.InitResourceContext) -> None:
    """Tags the run that a resource is set up for with its process, unless whoever started it has done so."""
    run = context.run
    if run is not None and context.instance is not None and PROCESS_TAG not in run.tags:
        context.instance.add_run_tags(run.run_id, process_tags())
