"""Killed processes and processes side by side: nothing is lost, nothing stays locked, and the bytes are the same."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest

from saerl_assets import definitions
from saerl_assets.assets.rooms import GPU_POOL
from saerl_assets.automation.runs import open_instance
from saerl_assets.automation.summary import run_version
from saerl_assets.disk import folder_digest
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.schema import tables
from saerl_assets.storage.shards import ShardStore
from saerl_assets_tests.tiny import KEY, N_PROMPTS, TinyWorld

pytestmark = pytest.mark.slow

TEXTS_PER_SHARD = 16
N_SHARDS = -(-N_PROMPTS // TEXTS_PER_SHARD)
N_BEFORE_DEATH = 2

KILLED = f"""
import os, signal
from saerl_assets import definitions
from saerl_assets.cli import main
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.storage.shards import ShardStore

definitions.defs = definitions.build_definitions(compute=ComputeResource(texts_per_shard={TEXTS_PER_SHARD}))
write, written = ShardStore.write, []

def write_and_die(self, shard_id, tables):
    write(self, shard_id, tables)
    written.append(shard_id)
    if len(written) == {N_BEFORE_DEATH}:
        os.kill(os.getpid(), signal.SIGKILL)

ShardStore.write = write_and_die
main(["run", "{KEY}"])
"""
"""What `saerl run` is, but it dies inside the pool once two shards are written."""


KILLED_OFTEN = """
import os, random, shutil, signal, sys, time

import torch

from saerl_assets.domain.progress import silent
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.extraction import extract
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.reading import Reading

torch.set_num_threads(1)
undisturbed, killed, key, n_kills = HomeResource(root=sys.argv[1]), HomeResource(root=sys.argv[2]), sys.argv[3], 20
compute = ComputeResource(texts_per_shard=4)


def started(home):
    child = os.fork()
    if child == 0:
        reading = Reading(home, compute, key, lambda words: None)
        names = ("prompts", "sae_weights", "control_saes")
        extract(reading, *(home.warehouse().rows(name, dataset_version=key) for name in names), silent)
        os._exit(0)
    return child


begun = time.monotonic()
assert os.waitpid(started(undisturbed), 0)[1] == 0
duration = time.monotonic() - begun
moments, n_killed, n_restarts = random.Random(0), 0, 0
while n_killed < n_kills:
    child = started(killed)
    time.sleep(moments.uniform(0, duration / 2))
    os.kill(child, signal.SIGKILL)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL:
        n_killed += 1
    else:  # it was faster: begin anew
        n_restarts += 1
        shutil.rmtree(killed.open().work(key))
assert os.waitpid(started(killed), 0)[1] == 0
print(f"{n_killed} kills, {n_restarts} finished before theirs")
"""
"""Extractions killed at random moments; the children share the imports of one process, so that it takes seconds."""


@pytest.fixture
def shards_written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Shards that runs in this process write; they are as small as those of the process that is killed."""
    compute = ComputeResource(texts_per_shard=TEXTS_PER_SHARD)
    monkeypatch.setattr(definitions, "defs", definitions.build_definitions(compute=compute))
    write, written = ShardStore.write, []

    def counted(self: ShardStore, shard_id: str, frames: Mapping[str, object]) -> None:
        written.append(shard_id)
        write(self, shard_id, frames)

    monkeypatch.setattr(ShardStore, "write", counted)
    return written


def environment(home: HomeResource) -> dict[str, str]:
    return {**os.environ, "SAERL_HOME": home.root, "DAGSTER_HOME": str(home.open().dagster)}


def claimed_slots(instance: dg.DagsterInstance) -> int:
    return len(instance.event_log_storage.get_concurrency_info(GPU_POOL).claimed_slots)


def test_a_build_that_is_killed_in_the_pool_resumes_and_gives_the_same_bytes(
    tiny_world: TinyWorld, tmp_path: Path, shards_written: list[str]
) -> None:
    undisturbed, killed = HomeResource(root=str(tmp_path / "one")), HomeResource(root=str(tmp_path / "two"))
    for home in (undisturbed, killed):
        tiny_world.register(home)

    died = subprocess.run(
        [sys.executable, "-c", KILLED],
        env=environment(killed),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    with open_instance(killed.open().dagster) as instance:
        runs = instance.get_runs()
        assert [run.status for run in runs] == [dg.DagsterRunStatus.STARTED]
        assert claimed_slots(instance) == 1, "it died while it held the slot"
    assert killed.warehouse().rows("prompt_features").is_empty()

    resumed = run_version(killed, KEY)
    assert resumed.success, resumed.failure
    assert len(shards_written) == N_SHARDS - N_BEFORE_DEATH
    assert "sae_weights" not in resumed.seconds, "what was finished before is kept"
    with open_instance(killed.open().dagster) as instance:
        dead = instance.get_run_by_id(runs[0].run_id)
        assert dead is not None
        assert dead.status == dg.DagsterRunStatus.FAILURE
        assert claimed_slots(instance) == 0

    shards_written.clear()
    assert run_version(undisturbed, KEY).success
    assert len(shards_written) == N_SHARDS
    for name in set(tables()) - {"versions", "manifests", "label_observations", "version_report"}:
        assert killed.warehouse().rows(name).equals(undisturbed.warehouse().rows(name)), name
    assert killed.version(KEY).current_manifest_id == undisturbed.version(KEY).current_manifest_id
    assert folder_digest(killed.open().exports) == folder_digest(undisturbed.open().exports)


def test_an_extraction_killed_at_twenty_random_moments_ends_with_the_same_bytes(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    homes = [HomeResource(root=str(tmp_path / name)) for name in ("undisturbed", "killed")]
    for home in homes:
        tiny_world.register(home)
        assert run_version(home, KEY, only=["versions", "prompts", "sae_weights", "sae_health", "control_saes"]).success
        shutil.rmtree(home.open().work(KEY) / "activations")  # so that the model is read
    driver = [sys.executable, "-c", KILLED_OFTEN, *(home.root for home in homes), KEY]
    done = subprocess.run(driver, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("20 kills"), done.stdout
    made = [home.open().work(KEY) / "shards" for home in homes]
    assert len(list(made[0].rglob("*.parquet"))) == 3 * N_PROMPTS // 4
    assert folder_digest(made[0]) == folder_digest(made[1])


def test_eight_versions_at_once_all_succeed(tiny_world: TinyWorld, fresh_home: HomeResource) -> None:
    keys = [f"side-v{number}" for number in range(1, 9)]
    for number, key in enumerate(keys):
        tiny_world.register(fresh_home, key, seed=number, batches={"batch_size": 8 + number})
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "saerl_assets.cli", "run", key],
            env=environment(fresh_home) | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for key in keys
    ]
    try:
        for process in running:
            told, _ = process.communicate(timeout=600)
            assert process.returncode == 0, told
    finally:
        for process in running:
            process.kill()
            process.wait()
    warehouse = fresh_home.warehouse()
    assert warehouse.rows("prompt_features").height == 2 * N_PROMPTS, "they share one encoder and its control"
    assert sorted(warehouse.rows("manifests")["dataset_version"]) == keys
    for number, key in enumerate(keys):
        assert warehouse.rows("prompts", dataset_version=key).height == N_PROMPTS
        assert warehouse.rows("cluster_assignments", dataset_version=key).height == N_PROMPTS
        batches = warehouse.rows("batch_manifest", dataset_version=key)
        assert batches.height > 0
        assert batches["slot"].max() == 7 + number
