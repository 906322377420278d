"""Steps, daemon and webserver killed at random moments while three versions are built: nothing is lost or doubled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from saerl_assets.assets.rooms import GPU_POOL
from saerl_assets.automation.runs import open_instance
from saerl_assets.automation.summary import run_version
from saerl_assets.cli import main
from saerl_assets.disk import folder_digest
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.leftovers import find_leftovers, remove
from saerl_assets.storage.schema import tables
from saerl_assets_tests.automation.under_fire import STARTS_APART, Services, fire, hurry, wait_for_quiet
from saerl_assets_tests.tiny import TinyWorld

pytestmark = pytest.mark.slow

N_KILLS = int(os.environ.get("SAERL_KILLS", "6"))
"""Enough for every change; the documentation's figure is of SAERL_KILLS=30."""
SEED = int(os.environ.get("SAERL_KILLS_SEED", "0"))
KEYS = ("fire-v1", "fire-v2", "fire-v3")
WITH_A_CLOCK = {"versions", "manifests", "label_observations", "version_report"}
"""Tables that say when; all others are the same in any two homes."""
HARMLESS = {"half written by a process that was killed", "shards and caches that no run has touched"}
"""What may be left for `saerl gc` to remove."""


def built(home: HomeResource, key: str) -> None:
    """What a person does: `saerl run`. On one thread, as the services: with more, sums have other last digits."""
    done = subprocess.run(
        [sys.executable, "-m", "saerl_assets.cli", "run", key],
        env={**os.environ, "SAERL_HOME": str(home.open().root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_versions_built_under_fire_are_those_of_a_quiet_home(tiny_world: TinyWorld, tmp_path: Path) -> None:
    quiet, fired = (HomeResource(root=str(tmp_path / name)) for name in ("quiet", "fired"))
    hurry(fired)
    for home in (quiet, fired):
        for number, key in enumerate(KEYS):
            # One learns from labels, which takes most of a build; the others go by what is activated.
            tiny_world.register(home, key, seed=number, **({} if number == 0 else {"labels": None}))
    for key in KEYS:
        built(quiet, key)

    services = Services(fired, tmp_path / "services.log")
    with open_instance(fired.open().dagster) as instance:
        try:
            for name in ("daemon", "webserver"):
                services.start(name)
            longest = STARTS_APART * services.wait()
            kills = fire(services, instance, KEYS, longest=longest, n_kills=N_KILLS, seed=SEED)
            wait_for_quiet(instance, seconds=600)
        finally:
            services.end()
        runs = instance.get_runs()
        ended = [run.status for run in runs]
        n_failed = ended.count(dg.DagsterRunStatus.FAILURE)
        print(f"{sum(kills.values())} kills {kills}; {len(runs)} runs, {n_failed} failed")  # noqa: T201 - pytest -s
        assert sum(kills.values()) == N_KILLS
        for key in KEYS:
            built(fired, key)
            assert run_version(fired, key).seconds == {}, "one more run is enough: nothing is due after it"
        assert instance.event_log_storage.get_concurrency_info(GPU_POOL).claimed_slots == []

    warehouse, undisturbed = fired.warehouse(), quiet.warehouse()
    for name in set(tables()) - WITH_A_CLOCK:
        found, expected = (
            rows.sort(rows.columns[: len(tables()[name].key)] or rows.columns)
            for rows in (warehouse.rows(name), undisturbed.rows(name))
        )
        assert found.equals(expected), name
    for key in KEYS:
        assert fired.version(key).current_manifest_id == quiet.version(key).current_manifest_id
    assert folder_digest(fired.open().exports) == folder_digest(quiet.open().exports)
    leftovers = find_leftovers(fired.open(), warehouse, busy=set(), older_than_days=0)
    assert {leftover.why for leftover in leftovers} <= HARMLESS
    remove(leftovers)
    healthy = CliRunner().invoke(main, ["--home", str(fired.open().root), "doctor"])
    assert healthy.exit_code == 0, healthy.output
