"""The schedules' jobs, each run on a home with a built version: what they do, and that a second run does no harm."""

from __future__ import annotations

import os
import time
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from saerl_assets.automation.runs import open_instance
from saerl_assets.automation.upkeep import CLUSTERED_AGAIN, LOOKED_AFTER
from saerl_assets.definitions import build_definitions
from saerl_assets.resources.home import HomeResource
from saerl_assets_tests.tiny import KEY

pytestmark = pytest.mark.slow

ORDER = ("batch_manifest", "deferred_prompts", "manifests", "difficulty_scores", "quality_scores")


def run_job(home: HomeResource, job: str, key: str | None = KEY) -> dg.ExecuteInProcessResult:
    found = build_definitions(home=home).resolve_job_def(job)
    with open_instance(home.open().dagster) as instance:
        return found.execute_in_process(instance=instance, partition_key=key, raise_on_error=False)


def made(result: dg.ExecuteInProcessResult) -> set[str]:
    events = result.get_asset_materialization_events()
    return {event.asset_key.path[-1] for event in events if event.asset_key is not None}


def rows(home: HomeResource, tables: tuple[str, ...]) -> dict[str, pl.DataFrame]:
    found = {table: home.warehouse().rows(table, dataset_version=KEY) for table in tables}
    return {table: frame.sort(pl.all().exclude(pl.List, pl.Struct)) for table, frame in found.items()}


def test_a_night_measures_drift_again_and_runs_every_check(copied_home: HomeResource) -> None:
    before = rows(copied_home, ORDER)
    for _ in range(2):
        result = run_job(copied_home, "look_after")
        assert result.success
        assert made(result) == set(LOOKED_AFTER)
        checks = result.get_asset_check_evaluations()
        assert len(checks) > 20
        assert all(check.passed for check in checks if check.blocking)
    assert all(frame.equals(before[table]) for table, frame in rows(copied_home, ORDER).items())


def test_a_night_finds_a_file_that_was_damaged(copied_home: HomeResource) -> None:
    home = copied_home.open()
    kept = copied_home.warehouse().rows("artifacts", dataset_version=KEY)
    file = max((path for path in (home.root / kept["path"][0]).rglob("*") if path.is_file()), key=os.path.getsize)
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    failed = [check for check in run_job(copied_home, "look_after").get_asset_check_evaluations() if not check.passed]
    assert "all_intact" in {check.check_name for check in failed}


def test_clusters_are_made_again_and_the_order_stays(copied_home: HomeResource) -> None:
    before = rows(copied_home, (*ORDER, "cluster_assignments"))
    for _ in range(2):
        result = run_job(copied_home, "refresh_clusters")
        assert result.success
        assert made(result) == set(CLUSTERED_AGAIN)
    # The version has no parent, so the same clusters come out; the order is not touched in any case.
    assert all(frame.equals(before[table]) for table, frame in rows(copied_home, tuple(before)).items())


def test_room_is_made_of_what_nothing_needs(copied_home: HomeResource) -> None:
    home = copied_home.open()
    orphan = home.exports / ("0" * 16)
    orphan.mkdir()
    (orphan / "train.parquet").write_bytes(b"x" * 1000)
    age(orphan, days=30)
    kept = sorted(path for path in home.exports.iterdir() if path != orphan)
    assert kept
    before = rows(copied_home, ORDER)
    for _ in range(2):
        assert run_job(copied_home, "make_room", None).success
        assert not orphan.exists()
        assert sorted(home.exports.iterdir()) == kept
    assert all(frame.equals(before[table]) for table, frame in rows(copied_home, ORDER).items())


def test_room_is_made_in_an_empty_home(fresh_home: HomeResource) -> None:
    assert run_job(fresh_home, "make_room", None).success


def age(folder: Path, *, days: float) -> None:
    then = time.time() - days * 86_400
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (then, then))
