"""Processes of this machine and actors of a real Ray cluster: the same rows as one process, whatever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
from polars.testing import assert_series_equal

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.progress import silent
from saerl_assets.resources import extraction
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.extraction import Extraction, extract
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.local_workers import LocalEngine
from saerl_assets.resources.reading import Reading
from saerl_assets.resources.rollouts import roll_out
from saerl_assets.resources.workers import MAX_TRIES, Crew
from saerl_assets_tests.resources.slow_reading import Note, SlowReading
from saerl_assets_tests.tiny import N_PROMPTS, TinyWorld, write_model

pytestmark = pytest.mark.slow

KEY = "engines-v1"
TEXTS_PER_SHARD = 4
N_SHARDS = -(-N_PROMPTS // TEXTS_PER_SHARD)
TASKS = {f"task {number}": f"task {number}" for number in range(30)}
FRAMES = ("prompts", "sae_weights", "control_saes")

LEFT_ALONE = """
import os, signal, sys, time
from pathlib import Path
from saerl_assets.resources.local_workers import LocalEngine
from saerl_assets.resources.workers import Crew
from saerl_assets_tests.resources.slow_reading import Note

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    crew = Crew(LocalEngine(Note(folder), ["cpu", "cpu"], 1), 2, print)
    results = crew.results({str(n): str(n) for n in range(1000)})
    while len(list(folder.iterdir())) < 2:
        next(results)
    os.kill(os.getpid(), signal.SIGKILL)
"""
"""A run that is killed while two processes work for it."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_world: TinyWorld) -> HomeResource:
    """A home with a version built, of which what workers make is forgotten."""
    from saerl_assets.automation.summary import run_version

    found = HomeResource(root=str(tmp_path_factory.mktemp("engines") / "home"))
    write_model(tiny_world.folder / "policy", has_head=True, seed=1)
    asks = {"policy": "path:policy", "verifier": "saerl_assets_tests.verifiers:by_level", "n_prompts": 20}
    tiny_world.register(found, KEY, labels=None, outcomes={**asks, "n_rollouts": 2, "max_new_tokens": 4})
    done = run_version(found, KEY)
    assert done.success, done.failure
    with found.warehouse().writing("forget") as connection:
        for table in ("prompt_features", "prompt_states", "rollouts"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - one of these
    return found


@pytest.fixture(scope="module")
def alone(home: HomeResource) -> pl.DataFrame:
    """The rows as one process reads them."""
    return rows_of(*read(home, ComputeResource(device="cpu", texts_per_shard=TEXTS_PER_SHARD)))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray cluster of a head and two nodes: three raylets of their own, each with one processor."""
    pytest.importorskip("ray", reason="Ray, the extra of that name, is not installed")
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    made.shutdown()  # type: ignore[no-untyped-call]


def ray_compute(cluster: Any, **settings: Any) -> ComputeResource:  # noqa: ANN401 - Ray's own
    address = cluster.address
    return ComputeResource(device="cpu", texts_per_shard=TEXTS_PER_SHARD, engine="ray", ray_address=address, **settings)


def read(home: HomeResource, compute: ComputeResource, progress: Any = silent) -> tuple[Extraction, Reading]:  # noqa: ANN401
    reading = Reading(home, compute, KEY, lambda _words: None)
    prompts, weights, controls = (home.warehouse().rows(name, dataset_version=KEY) for name in FRAMES)
    return extract(reading, prompts, weights, controls, progress), reading


def rows_of(done: Extraction, reading: Reading) -> pl.DataFrame:
    """All rows of an extraction, which is then forgotten."""
    found = pl.concat([pl.read_parquet(file) for file in done.features.files]).sort("encoder_id", "text_id")
    reading.forget()
    return found


def hold_same(found: pl.DataFrame, expected: pl.DataFrame) -> None:
    """The same texts, tokens and active features, and values that differ by the order of sums at most."""
    floats = [name for name, kind in expected.schema.items() if kind.base_type() == pl.List and kind.inner.is_float()]  # type: ignore[attr-defined]
    exact = [name for name in expected.columns if name not in floats]
    assert found.select(exact).equals(expected.select(exact))
    for name in floats:
        assert_series_equal(found[name].explode(), expected[name].explode(), rel_tol=1e-4, abs_tol=2e-5)


def test_two_processes_give_the_rows_of_one(home: HomeResource, alone: pl.DataFrame) -> None:
    done, reading = read(home, ComputeResource(device="cpu", texts_per_shard=TEXTS_PER_SHARD, workers=2))
    figures = {name: done.figures[name] for name in ("engine", "workers", "workers_lost", "shards_retried")}
    assert figures == {"engine": "local", "workers": 2, "workers_lost": 0, "shards_retried": 0}
    hold_same(rows_of(done, reading), alone)


def test_a_process_that_is_killed_costs_one_shard(
    home: HomeResource, alone: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "ReadingJob", SlowReading)
    killed: list[int] = []

    def kill_one(done: int, _total: int, **_: str) -> None:
        if done and not killed:
            children = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
            killed.append(children[0].pid)
            children[0].kill()

    compute = ComputeResource(device="cpu", texts_per_shard=TEXTS_PER_SHARD, workers=2)
    done, reading = read(home, compute, kill_one)
    assert killed
    assert done.figures["workers_lost"] == 1
    hold_same(rows_of(done, reading), alone)


def test_processes_end_with_a_run_that_is_killed(tmp_path: Path) -> None:
    left = subprocess.run([sys.executable, "-c", LEFT_ALONE, str(tmp_path)], check=False, timeout=120)
    assert left.returncode == -signal.SIGKILL
    workers = [int(file.name) for file in tmp_path.iterdir()]
    assert len(workers) == 2
    give_up_at = time.monotonic() + 30
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in workers):
        assert time.monotonic() < give_up_at, "a worker lives on without its run"
        time.sleep(0.1)


def test_a_task_that_kills_every_process_is_named(tmp_path: Path) -> None:
    crew: Crew[str, int] = Crew(LocalEngine(Note(tmp_path, dies_always="task 3"), ["cpu", "cpu"], 1), 2, print)
    with pytest.raises(SaerlError, match=rf"task 3: It failed {MAX_TRIES} times.*task_failed"):
        list(crew.results(TASKS))


def test_three_nodes_give_the_rows_of_one_process(cluster: Any, home: HomeResource, alone: pl.DataFrame) -> None:  # noqa: ANN401
    done, reading = read(home, ray_compute(cluster))
    assert done.figures["engine"] == "ray"
    assert done.figures["workers"] == 3, "one a node"
    hold_same(rows_of(done, reading), alone)


def test_three_nodes_give_the_answers_of_one_process(cluster: Any, home: HomeResource) -> None:  # noqa: ANN401
    tables = home.warehouse()
    prompts, clusters = (tables.rows(name, dataset_version=KEY) for name in ("prompts", "cluster_assignments"))
    answers = []
    for compute in (ComputeResource(device="cpu", texts_per_shard=TEXTS_PER_SHARD), ray_compute(cluster)):
        done = roll_out(home, compute, home.version(KEY), prompts, clusters, silent)
        answers.append(done.rollouts.drop("made_at").sort("rollout_id"))
        done.forget()
    assert answers[0].height == 40
    assert answers[1].equals(answers[0])


def test_an_actor_that_fails_on_a_shard_has_it_done_elsewhere_and_one_that_always_fails_is_named(
    cluster: Any,  # noqa: ANN401
    tmp_path: Path,
) -> None:
    from saerl_assets.resources.ray_workers import RayEngine

    note = Note(tmp_path, fails_first="task 3", fails_always="task 20", n_workers=3)
    engine = RayEngine(note, device="cpu", address=cluster.address)
    crew: Crew[str, int] = Crew(engine, engine.n_workers, print)
    found: dict[str, int] = {}
    with pytest.raises(SaerlError, match=rf"task 20: It failed {MAX_TRIES} times.*misaligned address") as caught:
        found.update(crew.results(TASKS))
    assert caught.value.code == "task_failed"
    assert crew.n_retried == 1 + MAX_TRIES - 1
    assert len(set(found.values())) == 3, "one on each node"
    assert found["task 3"] != int((tmp_path / "failed-once").read_text())


def test_a_node_that_is_killed_in_the_middle_costs_what_it_was_doing(
    cluster: Any,  # noqa: ANN401
    home: HomeResource,
    alone: pl.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extraction, "ReadingJob", SlowReading)
    killed: list[Any] = []
    n_done: list[int] = []

    def kill_a_node(done: int, _total: int, **_: str) -> None:
        n_done.append(done)
        if len(n_done) == 6:
            killed.append(sorted(cluster.worker_nodes, key=lambda node: node.node_id)[0])
            cluster.remove_node(killed[0], allow_graceful=False)

    done, reading = read(home, ray_compute(cluster), kill_a_node)
    assert killed
    assert done.figures["workers_lost"] == 1
    assert len(n_done) == N_SHARDS
    hold_same(rows_of(done, reading), alone)


def test_a_cluster_that_is_not_there_is_told(home: HomeResource) -> None:
    pytest.importorskip("ray", reason="Ray, the extra of that name, is not installed")
    compute = ComputeResource(device="cpu", texts_per_shard=TEXTS_PER_SHARD, engine="ray", ray_address="127.0.0.1:1")
    with pytest.raises(SaerlError, match="ray_unreachable"):
        read(home, compute)


def test_without_ray_it_is_said_what_to_install(home: HomeResource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SaerlError, match=r"pip install 'saerl_assets\[ray\]'"):
        read(home, ComputeResource(device="cpu", engine="ray"))


def test_an_unknown_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAERL_ENGINE", "spark")
    with pytest.raises(SaerlError, match=r"'spark' is no engine\. Choose local or ray"):
        ComputeResource().chosen_engine()
