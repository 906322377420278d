"""A disk that is really full while prompts are read: said plainly, and with room again the bytes are the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from saerl_assets.resources.home import HomeResource
from saerl_assets_tests.tiny import KEY, N_PROMPTS, TinyWorld

TEXTS_PER_SHARD = 8
N_SHARDS = N_PROMPTS // TEXTS_PER_SHARD
UP_TO_FEATURES = ["versions", "prompts", "sae_weights", "sae_health", "control_saes", "prompt_features"]
TABLES = ("prompt_features", "prompt_states")
IN_A_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
"""A process with mounts of its own, which go with it; no rights are needed where the kernel lets users have it."""

THREE_RUNS = """
import json, subprocess, sys

from saerl_assets import definitions
from saerl_assets.automation.summary import run_version
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.shards import ShardStore

roomy, cramped, key, place, n_bytes, texts_per_shard, stages = json.loads(sys.argv[1])
definitions.defs = definitions.build_definitions(compute=ComputeResource(texts_per_shard=texts_per_shard))
write, written = ShardStore.write, []

def counted(self, shard_id, tables):
    write(self, shard_id, tables)
    written.append(shard_id)

ShardStore.write = counted

def run(home):
    written.clear()
    done = run_version(HomeResource(root=home), key, only=stages)
    return {"success": done.success, "failure": done.failure, "written": list(written)}

runs = [run(roomy)]
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", place], check=True)
runs.append(run(cramped))
subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)
runs.append(run(cramped))
print(json.dumps(runs))
"""
"""A version that is run undisturbed, then in another home on a small disk, and there again once the disk has grown."""


def namespace_or_skip(folder: Path) -> None:
    mount = [*IN_A_NAMESPACE, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        tried = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("a small disk is made with unshare, which is not here")
    if tried.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {tried.stderr.strip()}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "stage", "n_bytes"),
    [
        ("shards", "extraction", 100_000),  # a part of the rows that the extraction writes
        ("activations", "sae_weights", 8_192),  # less than the activations that an SAE is measured on
    ],
)
def test_it_is_named_and_with_room_again_the_bytes_are_those_of_an_undisturbed_run(
    place: str, stage: str, n_bytes: int, tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace_or_skip(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    roomy, cramped = (HomeResource(root=str(tmp_path / name)) for name in ("roomy", "cramped"))
    for home in (roomy, cramped):
        tiny_world.register(home)
    disk = cramped.open().work(KEY) / place
    disk.mkdir(parents=True)
    task = json.dumps([roomy.root, cramped.root, KEY, str(disk), n_bytes, TEXTS_PER_SHARD, UP_TO_FEATURES])
    done = subprocess.run(
        [*IN_A_NAMESPACE, sys.executable, "-c", THREE_RUNS, task],
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    undisturbed, full, again = json.loads(done.stdout.splitlines()[-1])

    assert undisturbed["success"], undisturbed["failure"]
    assert not full["success"]
    told = full["failure"].splitlines()[0]
    assert told.startswith(f"{stage}: ")
    assert "[disk_full]" in told
    assert "Make room on the disk" in told
    assert str(disk) in told
    assert again["success"], again["failure"]
    if place == "shards":
        assert 0 < len(full["written"]) < N_SHARDS, "some fitted, and they stay"
        assert not set(full["written"]) & set(again["written"])
    assert len(full["written"]) + len(again["written"]) == len(undisturbed["written"]) == N_SHARDS
    for name in TABLES:
        assert cramped.warehouse().rows(name).equals(roomy.warehouse().rows(name)), name
