"""Which worker gets which task: workers that die, tasks that fail, and what is left over of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from saerl_assets.domain.errors import SaerlError
from saerl_assets.resources import workers
from saerl_assets.resources.workers import MAX_REPLACED, MAX_TRIES, Crew, WorkerDiedError

TASKS = {f"task {number}": number for number in range(20)}
Behaviour = Callable[[str, int], int]


@dataclass
class Threads:
    """An engine whose workers are threads that behave as a test says."""

    do: Behaviour
    open: Callable[[int], None] = lambda _number: None
    n_started: int = 0
    n_closed: int = 0
    is_closed: bool = False
    did: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def start(self) -> Thread:
        self.n_started += 1
        return Thread(self, self.n_started)

    def waits_for(self) -> str:
        return "a place"

    def close(self) -> None:
        self.is_closed = True


class Thread:
    def __init__(self, engine: Threads, number: int) -> None:
        self.name, self._number, self._engine = f"worker {number}", number, engine
        self._pool = ThreadPoolExecutor(1)

    def open(self) -> Future[None]:
        return self._pool.submit(self._engine.open, self._number)

    def submit(self, task: Any) -> Future[Any]:  # noqa: ANN401 - any task
        self._engine.did[self.name].append(task)
        return self._pool.submit(self._engine.do, self.name, task)

    def close(self) -> None:
        self._engine.n_closed += 1
        self._pool.shutdown(wait=False)


def square(_worker: str, task: int) -> int:
    return task * task


def run(engine: Threads, n_workers: int = 3) -> tuple[dict[str, int], Crew[int, int], list[str]]:
    said: list[str] = []
    crew: Crew[int, int] = Crew(engine, n_workers, said.append)
    found = list(crew.results(TASKS))
    assert len(found) == len(dict(found)), "a task was done twice"
    return dict(found), crew, said


def whole(found: dict[str, int]) -> bool:
    return found == {name: task * task for name, task in TASKS.items()}


def test_every_task_is_done_once_and_all_workers_are_ended() -> None:
    engine = Threads(square)
    found, crew, said = run(engine)
    assert whole(found)
    assert sum(map(len, engine.did.values())) == len(TASKS)
    assert (engine.n_started, engine.n_closed, engine.is_closed) == (3, 3, True)
    assert (crew.n_lost, crew.n_retried) == (0, 0)
    assert set(said) == {f"worker {number} is ready" for number in (1, 2, 3)}


def test_no_more_workers_are_started_than_there_are_tasks() -> None:
    engine = Threads(square)
    crew: Crew[int, int] = Crew(engine, 8, print)
    assert dict(crew.results({"only": 3})) == {"only": 9}
    assert engine.n_started == 1


def test_a_worker_that_dies_is_replaced_and_its_task_done_by_another() -> None:
    def do(worker: str, task: int) -> int:
        if worker == "worker 2":
            raise WorkerDiedError("gone")
        return task * task

    engine = Threads(do)
    found, crew, said = run(engine)
    assert whole(found)
    assert (crew.n_lost, crew.n_retried) == (1, 1)
    assert engine.n_started == engine.n_closed == 4
    assert len(engine.did["worker 2"]) == 1
    assert "worker 2 died; another worker is started" in said


def test_a_task_that_fails_on_one_worker_is_tried_on_another() -> None:
    def do(worker: str, task: int) -> int:
        if worker == "worker 1":
            raise RuntimeError("this device is broken")
        return task * task

    engine = Threads(do)
    found, crew, _ = run(engine)
    assert whole(found)
    assert crew.n_lost == 0
    assert crew.n_retried == len(engine.did["worker 1"]) > 0
    assert len(set(engine.did["worker 1"])) == len(engine.did["worker 1"]), "the same worker tried a task twice"


@pytest.mark.parametrize("failure", [RuntimeError("no such number"), WorkerDiedError("out of memory")])
def test_a_task_that_always_fails_is_named_and_ends_the_run(failure: Exception) -> None:
    tried: list[str] = []

    def do(worker: str, task: int) -> int:
        if task == 7:
            tried.append(worker)
            raise failure
        return task * task

    engine = Threads(do)
    with pytest.raises(SaerlError, match=rf"task 7: It failed {MAX_TRIES} times.*{failure}") as caught:
        run(engine)
    assert caught.value.code == "task_failed"
    assert len(tried) == len(set(tried)) == MAX_TRIES, "each try was on another worker"
    assert engine.n_closed == engine.n_started


def test_what_is_wrong_with_the_data_is_told_at_once() -> None:
    tried: list[str] = []

    def do(worker: str, task: int) -> int:
        if task == 7:
            tried.append(worker)
            raise SaerlError("activations_not_finite", "They are not.", remedy="Mend them.")
        return task * task

    with pytest.raises(SaerlError, match="activations_not_finite"):
        run(Threads(do))
    assert len(tried) == 1


def test_what_passes_is_tried_again() -> None:
    tried: list[str] = []

    def do(worker: str, task: int) -> int:
        if task == 7 and not tried:
            tried.append(worker)
            raise SaerlError("hub_unreachable", "It is away.", remedy="Wait.", passing=True)
        return task * task

    assert whole(run(Threads(do))[0])


def test_a_machine_that_lacks_the_model_is_left_out() -> None:
    def open_(number: int) -> None:
        if number == 2:
            raise SaerlError("model_missing", "There is no such model.", remedy="Put it there.")

    engine = Threads(square, open_)
    found, _, said = run(engine)
    assert whole(found)
    assert "worker 2" not in engine.did
    assert any(line.startswith("worker 2 is left out: There is no such model.") for line in said)


def test_a_model_that_is_nowhere_is_told_as_on_one_machine() -> None:
    def open_(_number: int) -> None:
        raise SaerlError("model_missing", "There is no such model.", remedy="Put it there.")

    with pytest.raises(SaerlError, match="model_missing"):
        run(Threads(square, open_))


def test_workers_that_all_die_end_the_run_and_are_not_started_for_ever() -> None:
    def open_(_number: int) -> None:
        raise WorkerDiedError("out of memory")

    engine = Threads(square, open_)
    with pytest.raises(SaerlError, match=r"All workers died.*out of memory.*no_worker"):
        run(engine, n_workers=2)
    assert engine.n_started == 2 + 2 * MAX_REPLACED


def test_a_replacement_that_never_comes_holds_nobody_up() -> None:
    """As on a cluster without a free machine. A task that failed where one worker is left is tried there again."""
    died: list[str] = []

    def do(worker: str, task: int) -> int:
        if worker == "worker 1":
            died.append(worker)
            raise WorkerDiedError("gone")
        if task == 7 and died.count("seven") < 1:
            died.append("seven")
            raise RuntimeError("once")
        return task * task

    class Full(Threads):
        def start(self) -> Thread:
            started = super().start()
            if self.n_started > 2:
                started.open = Future  # type: ignore[method-assign] # it stays pending
            return started

    found, crew, _ = run(Full(do), n_workers=2)
    assert whole(found)
    assert crew.n_lost == 1


def test_it_is_said_what_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SECONDS_UNTIL_TOLD", 0.01)
    waits: Future[None] = Future()

    class Slow(Threads):
        def start(self) -> Thread:
            started = super().start()
            started.open = lambda: waits  # type: ignore[method-assign]
            return started

    said: list[str] = []

    def say(words: str) -> None:
        said.append(words)
        if "no worker is ready yet" in words:
            waits.set_result(None)

    crew: Crew[int, int] = Crew(Slow(square), 1, say)
    assert dict(crew.results({"only": 3})) == {"only": 9}
    assert said == ["no worker is ready yet: a place", "worker 1 is ready"]


def test_who_stops_listening_ends_the_workers() -> None:
    engine = Threads(square)
    crew: Crew[int, int] = Crew(engine, 2, print)
    results = crew.results(TASKS)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert engine.n_closed == engine.n_started
    assert engine.is_closed
