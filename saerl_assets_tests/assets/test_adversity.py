"""A home that is not as it was left: partitions deleted in the UI, a clock that was set back, files that changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from saerl_assets.automation.feedback import next_epoch_sensor
from saerl_assets.automation.runs import open_instance, remove_partition
from saerl_assets.automation.summary import describe_version, previous_manifest, run_version
from saerl_assets.definitions import defs
from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.placement import Placement
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.manifests import next_moment
from saerl_assets.storage.notes import Note, write_note
from saerl_assets_tests.tiny import KEY, TinyWorld


def partitions(home: HomeResource) -> list[str]:
    with open_instance(home.open().dagster) as instance:
        return list(instance.get_dynamic_partitions(str(DATASET_VERSIONS.name)))


def test_a_partition_that_was_deleted_in_the_ui_comes_back_and_nothing_is_lost(copied_home: HomeResource) -> None:
    rows = {name: copied_home.warehouse().rows(name) for name in ("prompts", "batch_manifest")}
    with open_instance(copied_home.open().dagster) as instance:
        remove_partition(instance, KEY)
    assert partitions(copied_home) == []
    assert not any(stage.is_due for stage in describe_version(copied_home, KEY).stages), "it is still there to see"
    done = run_version(copied_home, KEY)
    assert done.success
    assert done.seconds == {}, "nothing is made again"
    assert partitions(copied_home) == [KEY]
    assert all(copied_home.warehouse().rows(name).equals(before) for name, before in rows.items())


def test_registering_again_brings_a_deleted_partition_back(tiny_world: TinyWorld, fresh_home: HomeResource) -> None:
    tiny_world.register(fresh_home)
    with open_instance(fresh_home.open().dagster) as instance:
        remove_partition(instance, KEY)
    tiny_world.register(fresh_home)
    assert partitions(fresh_home) == [KEY]


def test_a_deleted_partition_does_not_stop_the_sensor_of_epochs(
    fresh_home: HomeResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saerl_assets.automation.feedback._due_since", lambda *_: 7)
    sensor = next_epoch_sensor(Placement(), dg.DefaultSensorStatus.STOPPED)
    for key in ("gone-v1", "here-v1"):
        note = Note(key, None, "path:x", "/", "0", watch=False, follows_feedback=True)
        write_note(fresh_home.open(), note)
    with open_instance(fresh_home.open().dagster) as instance:
        instance.add_dynamic_partitions(str(DATASET_VERSIONS.name), ["here-v1"])
        with (
            dg.partition_loading_context(dynamic_partitions_store=instance),
            dg.build_sensor_context(
                instance=instance, resources={"saerl_home": fresh_home}, repository_def=defs.get_repository_def()
            ) as context,
        ):
            asked = sensor.evaluate_tick(context).run_requests or []
    assert [request.partition_key for request in asked] == ["here-v1"]


def test_a_partition_without_a_version_fails_in_words(
    copied_home: HomeResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAERL_HOME", copied_home.root)
    with open_instance(copied_home.open().dagster) as instance:
        instance.add_dynamic_partitions(str(DATASET_VERSIONS.name), ["nobody-v1"])
        with pytest.raises(dg.Failure, match=r"unknown_version") as caught:
            defs.resolve_implicit_global_asset_job_def().execute_in_process(
                partition_key="nobody-v1",
                instance=instance,
                asset_selection=[dg.AssetKey("versions")],
            )
    assert KEY in str(caught.value), "it names those that there are"


def test_data_that_has_changed_stops_a_run_with_the_difference(
    tiny_world: TinyWorld, copied_home: HomeResource, tmp_path: Path
) -> None:
    text = (tiny_world.folder / "prompts.jsonl").read_text()
    (tmp_path / "mine.jsonl").write_text(text)
    version = tiny_world.register(copied_home, "mine-v1", data={"source": f"path:{tmp_path / 'mine.jsonl'}"})
    (tmp_path / "mine.jsonl").write_text(text + '{"question": "One more?"}\n')
    done = run_version(copied_home, "mine-v1", only=["versions"])
    assert not done.success
    then = version.sources["data"]
    for part in ("[source_changed]", then.digest[:12], f"{then.n_bytes:,} bytes", str(tmp_path / "mine.jsonl")):
        assert part in done.failure
    (tmp_path / "mine.jsonl").write_text(text)
    assert run_version(copied_home, "mine-v1", only=["versions"]).success


def test_after_the_clock_was_set_back_a_version_is_built_and_is_the_same(copied_home: HomeResource) -> None:
    """Registered at a time that has not come yet: what was made since counts as made before, and is made again."""
    before = copied_home.warehouse().rows("cluster_assignments")
    manifest = copied_home.version(KEY).current_manifest_id
    later = datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=5)
    with copied_home.warehouse().writing("a clock that was ahead") as connection:
        connection.execute("UPDATE versions SET registered_at = ?", [later])
    assert all(stage.is_due for stage in describe_version(copied_home, KEY).stages), "nothing stale is taken for fresh"
    done = run_version(copied_home, KEY, only=["clusters", "batch_manifest"])
    assert done.success, done.failure
    assert copied_home.warehouse().rows("cluster_assignments").equals(before)
    assert copied_home.version(KEY).current_manifest_id == manifest


def test_a_manifest_is_later_than_those_before_it_whatever_the_clock_says(copied_home: HomeResource) -> None:
    first = str(copied_home.version(KEY).current_manifest_id)
    ahead = datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=5)
    warehouse = copied_home.warehouse()
    with warehouse.writing("made while the clock was ahead") as connection:
        connection.execute("UPDATE manifests SET created_at = ?", [ahead])
    moment = next_moment(copied_home, KEY)
    assert moment > ahead
    with warehouse.writing("the next one") as connection:
        select = "INSERT INTO manifests SELECT * REPLACE (? AS manifest_id, ? AS created_at) FROM manifests"
        connection.execute(select, ["f" * 64, moment])
    copied_home.catalog().set_current_manifest(KEY, "f" * 64)
    assert previous_manifest(copied_home.catalog(), KEY) == first
