"""Workers on this machine: one process for each device.

Belongs here: starting and watching processes. Does not belong here: other machines (ray_workers).
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import count
from multiprocessing.connection import wait
from typing import Any

from saerl_assets.resources.workers import Job, WorkerDiedError

_do: Callable[[Any], Any] | None = None
"""In a worker's process: what turns a task into its result."""


class LocalEngine:
    """Processes of this machine.

    Args:
        job: What they do.
        devices: The device of each; a replacement takes that of the one that died.
        n_threads: Threads of each for work on the processor; 0 for the library's own choice.
    """

    def __init__(self, job: Job[Any, Any], devices: Sequence[str], n_threads: int) -> None:
        self._job, self._n_threads = job, n_threads
        self._free, self._numbers = list(devices), count(1)

    def start(self) -> "LocalWorker":
        """A process on the next free device."""
        return LocalWorker(next(self._numbers), self._job, self._free.pop(0), self._n_threads, self._free.append)

    def waits_for(self) -> str:
        """Nothing but the models."""
        return "the models are being loaded"

    def close(self) -> None:
        """Nothing is held."""


class LocalWorker:
    """One process."""

    def __init__(
        self, number: int, job: Job[Any, Any], device: str, n_threads: int, give_back: Callable[[str], None]
    ) -> None:
        self.name = f"process {number} on {device}"
        self._job, self._device, self._n_threads, self._give_back = job, device, n_threads, give_back
        # spawned: CUDA and threads do not survive a fork
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_end_with_parent)

    def open(self) -> "Future[None]":
        """Loads the job."""
        return self._watched(_open, self._job, self._device, self._n_threads)

    def submit(self, task: Any) -> "Future[Any]":  # noqa: ANN401 - any task
        """Does one task."""
        return self._watched(_run, task)

    def close(self) -> None:
        """Kills the process: what it still does is not wanted."""
        for process in list((self._pool._processes or {}).values()):  # noqa: SLF001 - it has no other way to kill
            process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._give_back(self._device)

    def _watched(self, function: Callable[..., Any], *arguments: object) -> "Future[Any]":
        """The call's future, with the executor's word for a dead process turned into ours."""
        told: Future[Any] = Future()

        def pass_on(done: "Future[Any]") -> None:
            error = None if done.cancelled() else done.exception()
            if done.cancelled() or isinstance(error, BrokenProcessPool):
                told.set_exception(
                    WorkerDiedError("the process is gone; the kernel kills one that needs too much memory")
                )
            elif error is not None:
                told.set_exception(error)
            else:
                told.set_result(done.result())

        try:
            self._pool.submit(function, *arguments).add_done_callback(pass_on)
        except BrokenProcessPool as error:
            told.set_exception(WorkerDiedError(str(error)))
        return told


def _end_with_parent() -> None:
    """A worker whose run is killed must not keep a device: it ends as soon as its parent does."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _open(job: Job[Any, Any], device: str, n_threads: int) -> None:
    global _do  # noqa: PLW0603 - a process has one job
    from saerl_assets.models.device import use_threads

    use_threads(n_threads)
    _do = job.open(device)


def _run(task: Any) -> Any:  # noqa: ANN401 - any task
    if _do is None:
        message = "the worker was not opened"
        raise RuntimeError(message)
    return _do(task)
