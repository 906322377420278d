"""Which process a run lives in, as tags of the run.

Belongs here: naming this process. Does not belong here: judging whether one is dead, which the reaper does.
"""

import multiprocessing
import os
import socket
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import psutil

_HIDDEN = ".dagster/"
"""Tags with this prefix are kept with a run and left out wherever Dagster shows tags."""

HOST_TAG = f"{_HIDDEN}saerl_host"
PROCESS_TAG = f"{_HIDDEN}saerl_pid"
STARTED_TAG = f"{_HIDDEN}saerl_process_started"
_START_TICKS = 19
"""Place of the start in /proc/PID/stat, counted behind the name in brackets: proc(5), field 22."""


def process_tags(pid: int | None = None) -> dict[str, str]:
    """Tags that name a process, by default this one: its host, its id, and when it started, as ids are used again."""
    process = psutil.Process(pid)
    return {HOST_TAG: socket.gethostname(), PROCESS_TAG: str(process.pid), STARTED_TAG: _started(process)}


def is_same_process(process: psutil.Process, started: str) -> bool:
    """Whether a process is the one that a run's tag `STARTED_TAG` is about."""
    if ":" in started:
        return _started(process) == started
    return bool(abs(process.create_time() - float(started)) < 1.0)


def _started(process: psutil.Process) -> str:
    """When a process started: on Linux this boot and the ticks since, elsewhere seconds by the clock.

    By the clock a process seems to have started at another time once the clock was set, and would be taken for dead.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        fields = (
            Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
        return f"{boot}:{fields[_START_TICKS]}"
    except (OSError, IndexError):
        return f"{process.create_time():.2f}"


def tag_run(context: dg.InitResourceContext) -> None:
    """Tags the run that a resource is set up for with its process, unless whoever started it has done so.

    A run that Dagster starts again takes over the tags of the one that ended, and with them its process.
    """
    run = context.run
    if run is not None and context.instance is not None and not _name_a_living_process(run.tags):
        context.instance.add_run_tags(run.run_id, process_tags(_process_of_run(context.instance, run.run_id)))


def _name_a_living_process(tags: Mapping[str, str]) -> bool:
    """Whether tags of a run name a process of this machine that there still is."""
    try:
        process = psutil.Process(int(tags[PROCESS_TAG]))
        return tags[HOST_TAG] == socket.gethostname() and is_same_process(process, tags[STARTED_TAG])
    except (KeyError, ValueError, psutil.Error):
        return False


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
