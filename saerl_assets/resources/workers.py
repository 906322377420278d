"""Workers: the same job done task by task in several processes, on this machine or on many.

Belongs here: which worker gets which task, what happens when one dies or a task fails. Does not belong here: starting
processes (local_workers, ray_workers), what a worker does (worker_jobs).

A worker has one task at a time. One that dies is replaced and its task goes to another; so does a task that fails. One
that fails MAX_TRIES times is named. Results come as they are finished, each task's once.
"""

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Generic, Protocol, TypeVar

from saerl_assets.domain.errors import SaerlError

MAX_TRIES = 3
"""Workers that a task is given to before it is taken to be the task's own fault."""
MAX_REPLACED = 3
"""Workers that are started in place of dead ones, for each that was there at first."""
SECONDS_UNTIL_TOLD = 30.0
"""After so long without a worker that is ready, it is said what is waited for."""

Task = TypeVar("Task")
Made = TypeVar("Made")
Task_contra = TypeVar("Task_contra", contravariant=True)
Made_co = TypeVar("Made_co", covariant=True)


class Job(Protocol[Task_contra, Made_co]):
    """What a worker is sent: it can be pickled."""

    def open(self, device: str) -> Callable[[Task_contra], Made_co]:
        """Loads what is needed and gives what turns a task into its result; called once in each worker.

        Args:
            device: As `ComputeResource.device`.
        """


class Worker(Protocol):
    """One process that has the job."""

    name: str
    """Where it is, for messages."""

    def open(self) -> "Future[None]":
        """Loads the job."""

    def submit(self, task: Any) -> "Future[Any]":  # noqa: ANN401 - any task
        """Does one task."""

    def close(self) -> None:
        """Ends it, whatever it does."""


class WorkerDiedError(Exception):
    """The process of a worker is gone, with what it was doing; nothing is wrong with the task as far as is known."""


class Engine(Protocol):
    """Starts workers."""

    def start(self) -> Worker:
        """One more worker, which may take a while until it is there."""

    def waits_for(self) -> str:
        """What a worker needs that is not there yet, as a sentence."""

    def close(self) -> None:
        """Ends what the engine holds beside its workers."""


class Crew(Generic[Task, Made]):
    """Workers of one engine.

    Args:
        engine: Starts them.
        n_workers: How many there are at once.
        say: Told of workers that come and go.
    """

    def __init__(self, engine: Engine, n_workers: int, say: Callable[[str], None]) -> None:
        self.n_workers = n_workers
        self.n_lost = 0
        """Workers that died."""
        self.n_retried = 0
        """Tasks that were given to a worker again."""
        self._engine, self._say = engine, say
        self._left_to_replace = MAX_REPLACED * n_workers
        self._opening: dict[Future[Any], Worker] = {}
        self._busy: dict[Future[Any], tuple[Worker, Hashable]] = {}
        self._idle: list[Worker] = []
        self._there: list[Worker] = []

    def results(self, tasks: Mapping[str, Task]) -> Iterator[tuple[str, Made]]:
        """Does all tasks.

        Args:
            tasks: By the name that messages use.

        Yields:
            Name and result of each, in the order in which they are finished.

        Raises:
            SaerlError: What a task raised that is wrong with the data or the model; `task_failed` for one that no
                worker could do; `no_worker` if none is left.
        """
        waiting, failed_on, failures = deque(tasks), dict[str, set[str]](), Counter[str]()
        n_left = len(tasks)
        try:
            for _ in range(min(self.n_workers, n_left)):
                self._start()
            while n_left:
                self._assign(waiting, tasks, failed_on)
                for future in self._finished():
                    if future in self._opening:
                        self._opened(future)
                        continue
                    worker, name = self._busy.pop(future)
                    error = future.exception()
                    if error is None:
                        self._idle.append(worker)
                        self._assign(waiting, tasks, failed_on)  # nobody waits while the result is used
                        n_left -= 1
                        yield str(name), future.result()
                        continue
                    failures[str(name)] += 1
                    failed_on.setdefault(str(name), set()).add(worker.name)
                    self._take_back(worker, str(name), error, failures[str(name)])
                    waiting.appendleft(str(name))
        finally:
            self.close()

    def close(self) -> None:
        """Ends all workers."""
        for worker in list(self._there):
            self._end(worker)
        self._opening, self._busy, self._idle = {}, {}, []
        self._engine.close()

    def _start(self) -> None:
        worker = self._engine.start()
        self._there.append(worker)
        self._opening[worker.open()] = worker

    def _end(self, worker: Worker) -> None:
        self._there.remove(worker)
        worker.close()

    def _assign(self, waiting: deque[str], tasks: Mapping[str, Task], failed_on: Mapping[str, set[str]]) -> None:
        """Gives every idle worker a task, preferably one that has not failed there."""
        others = {worker.name for worker, _ in self._busy.values()} | {worker.name for worker in self._idle}
        for worker in list(self._idle):
            fits = [name for name in waiting if worker.name not in failed_on.get(name, ())]
            fits += [name for name in waiting if others <= failed_on.get(name, set())]
            if not fits:
                continue
            waiting.remove(fits[0])
            self._idle.remove(worker)
            self._busy[worker.submit(tasks[fits[0]])] = (worker, fits[0])

    def _finished(self) -> Sequence["Future[Any]"]:
        """Futures that are done, at least one."""
        has_told = False
        while True:
            if not self._opening and not self._busy:
                raise self._nobody_left(None)
            done, _ = wait([*self._opening, *self._busy], timeout=SECONDS_UNTIL_TOLD, return_when=FIRST_COMPLETED)
            if done:
                return list(done)
            if not self._busy and not self._idle and not has_told:
                self._say(f"no worker is ready yet: {self._engine.waits_for()}")
                has_told = True

    def _opened(self, future: "Future[Any]") -> None:
        """One more worker, or the reason why not."""
        worker = self._opening.pop(future)
        error = future.exception()
        if error is None:
            self._say(f"{worker.name} is ready")
            self._idle.append(worker)
            return
        self._end(worker)
        if isinstance(error, WorkerDiedError):
            self._replace(worker, error)
        elif self._opening or self._busy or self._idle:
            self._say(f"{worker.name} is left out: {error}")
        else:
            raise error

    def _take_back(self, worker: Worker, name: str, error: BaseException, n_failures: int) -> None:
        """What a failed task means: the end of the run, or another try."""
        died = isinstance(error, WorkerDiedError)
        if isinstance(error, SaerlError) and not error.passing:
            raise error
        if n_failures >= MAX_TRIES:
            raise SaerlError(
                "task_failed",
                f"It failed {n_failures} times, the last time on {worker.name}: {type(error).__name__}: {error}.",
                where=name,
                remedy="What is finished is kept. Try engine = 'local', which does it in one process.",
            ) from error
        self.n_retried += 1
        self._say(f"{name} failed on {worker.name} and is tried again elsewhere: {type(error).__name__}: {error}")
        if died:
            self._end(worker)
            self._replace(worker, error)
        else:
            self._idle.append(worker)

    def _replace(self, worker: Worker, error: BaseException) -> None:
        self.n_lost += 1
        if self._left_to_replace:
            self._left_to_replace -= 1
            self._say(f"{worker.name} died; another worker is started")
            self._start()
        elif not (self._opening or self._busy or self._idle):
            raise self._nobody_left(error) from error

    def _nobody_left(self, error: BaseException | None) -> SaerlError:
        problem = f"All workers died, {self.n_lost} in all" + (f"; the last: {error}." if error else ".")
        remedy = "What is finished is kept. Look for a lack of memory, or nodes that left; then run it again."
        return SaerlError("no_worker", problem, where="compute.engine", remedy=remedy)
