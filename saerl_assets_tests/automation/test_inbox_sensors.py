"""Sensors of the inbox and of watched sources: what they ask for, once, without ever opening the warehouse."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from saerl_assets.automation.arrivals import (
    TAKE_IN,
    inbox_sensor,
    new_versions_sensor,
    take_in_config,
    take_in_job,
    watched_sources_sensor,
)
from saerl_assets.automation.feedback import late_labels_sensor, next_epoch_sensor
from saerl_assets.automation.runs import add_partition, open_instance
from saerl_assets.definitions import defs
from saerl_assets.domain.arrivals import MAX_ATTEMPTS
from saerl_assets.domain.spec import parse_spec
from saerl_assets.placement import Placement
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.inbox import Inbox
from saerl_assets.storage.warehouse import Warehouse
from saerl_assets_tests.tiny import as_toml, tiny_spec

PLACEMENT = Placement()
STOPPED = dg.DefaultSensorStatus.STOPPED
ROWS = [{"prompt": f"How much is {n} and {n + 1}?", "answer": str(2 * n + 1)} for n in range(30)]
SENSORS = {
    "inbox": inbox_sensor(PLACEMENT, STOPPED),
    "watched_sources": watched_sources_sensor(PLACEMENT, STOPPED),
    "new_versions": new_versions_sensor(PLACEMENT, STOPPED),
    "late_labels": late_labels_sensor(PLACEMENT, STOPPED),
    "next_epoch": next_epoch_sensor(PLACEMENT, STOPPED),
}


class Daemon:
    """Ticks sensors as Dagster's daemon does: keeps cursors, and starts a run key once."""

    def __init__(self, home: HomeResource, instance: dg.DagsterInstance) -> None:
        self.home, self.instance = home, instance
        self.cursors: dict[str, str | None] = {}
        self.run_keys: set[str] = set()
        self.skipped = ""

    def tick(self, name: str) -> list[dg.RunRequest]:
        """One look; the requests that would start a run."""
        with (
            dg.partition_loading_context(dynamic_partitions_store=self.instance),
            dg.build_sensor_context(
                instance=self.instance,
                cursor=self.cursors.get(name),
                resources={"saerl_home": self.home},
                repository_def=defs.get_repository_def(),
            ) as context,
        ):
            found = SENSORS[name].evaluate_tick(context)
        if found.cursor is not None:
            self.cursors[name] = found.cursor
        self.skipped = found.skip_message or ""
        new = [request for request in found.run_requests or [] if request.run_key not in self.run_keys]
        self.run_keys |= {str(request.run_key) for request in new}
        return new

    def take_in(self, *requests: dg.RunRequest) -> None:
        """Runs the job for requests, as the daemon would."""
        for request in requests:
            job = take_in_job(PLACEMENT)
            done = job.execute_in_process(
                instance=self.instance,
                resources={"saerl_home": self.home},
                run_config=request.run_config,
                tags=dict(request.tags),
                raise_on_error=False,
            )
            self.last = done


@pytest.fixture
def daemon(fresh_home: HomeResource) -> Iterator[Daemon]:
    with open_instance(fresh_home.open().dagster) as instance:
        yield Daemon(fresh_home, instance)


@pytest.fixture
def no_warehouse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening the warehouse fails the test."""

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a sensor opened the warehouse")

    monkeypatch.setattr(Warehouse, "reading", refuse)
    monkeypatch.setattr(Warehouse, "writing", refuse)


def put(home: HomeResource, name: str, n_rows: int = 30) -> Path:
    path = home.open().inbox / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:n_rows]))
    return path


@pytest.mark.usefixtures("no_warehouse")
@pytest.mark.parametrize("name", SENSORS)
def test_an_idle_sensor_asks_for_nothing_and_says_so(daemon: Daemon, name: str) -> None:
    assert daemon.tick(name) == []
    assert daemon.skipped
    assert not daemon.home.open().warehouse.exists()


@pytest.mark.usefixtures("no_warehouse")
def test_a_file_is_asked_for_once_it_is_whole_and_once_only(daemon: Daemon) -> None:
    path = put(daemon.home, "sums.jsonl", 3)
    assert daemon.tick("inbox") == []
    with path.open("a") as file:
        file.write(json.dumps(ROWS[9]) + "\n")
    assert daemon.tick("inbox") == [], "it has grown"
    (request,) = daemon.tick("inbox")
    assert request.run_config == take_in_config(PLACEMENT, files=["sums.jsonl"])


@pytest.mark.parametrize("name", [b"\xff.jsonl", b"a" * 249 + b".jsonl", b"\x1b[2J\n'; --.jsonl"])
def test_a_hostile_name_goes_through_the_sensor_and_its_run(daemon: Daemon, name: bytes) -> None:
    path = put(daemon.home, os.fsdecode(name))
    put(daemon.home, "good.jsonl", 20)
    daemon.tick("inbox")
    daemon.take_in(*daemon.tick("inbox"))
    assert daemon.last.success
    assert not path.exists()
    assert "good-v1" in daemon.home.catalog().keys()  # noqa: SIM118 - a method of the catalog
    assert daemon.tick("inbox") == []


@pytest.mark.parametrize(
    "place", [b"\xff/a.jsonl", b"sums-v1/\xff/a.jsonl", b"sums-v1/" + b"\xc3\xbc" * 120 + b"/a.jsonl"]
)
def test_labels_of_a_hostile_name_are_set_aside(daemon: Daemon, place: bytes) -> None:
    add_partition(daemon.instance, "sums-v1")
    path = put(daemon.home, f"labels/{os.fsdecode(place)}", 3)
    daemon.tick("late_labels")
    assert daemon.tick("late_labels") == []
    assert not path.exists()
    assert (daemon.home.open().inbox / "rejected" / "a.jsonl.reason.txt").exists()


@pytest.mark.usefixtures("no_warehouse")
def test_a_tick_that_is_repeated_after_a_crash_asks_with_the_same_run_key(daemon: Daemon) -> None:
    put(daemon.home, "sums.jsonl")
    daemon.tick("inbox")
    before = daemon.cursors["inbox"]
    assert len(daemon.tick("inbox")) == 1
    daemon.cursors["inbox"] = before
    assert daemon.tick("inbox") == []


@pytest.mark.usefixtures("no_warehouse")
def test_nothing_is_asked_for_while_a_run_takes_arrivals_in(daemon: Daemon) -> None:
    put(daemon.home, "sums.jsonl")
    daemon.tick("inbox")
    run = daemon.instance.add_run(dg.DagsterRun(job_name=TAKE_IN, status=dg.DagsterRunStatus.STARTED))
    assert daemon.tick("inbox") == []
    assert run.run_id[:8] in daemon.skipped
    daemon.instance.report_run_failed(run)
    assert len(daemon.tick("inbox")) == 1


@pytest.mark.usefixtures("no_warehouse")
def test_a_file_on_which_every_run_fails_is_set_aside(daemon: Daemon) -> None:
    put(daemon.home, "poison.jsonl")
    daemon.tick("inbox")
    asked = [len(daemon.tick("inbox")) for _ in range(MAX_ATTEMPTS)]
    assert asked == [1] * MAX_ATTEMPTS
    put(daemon.home, "good.jsonl")
    assert daemon.tick("inbox") == []
    reason = (daemon.home.open().inbox / "rejected" / "poison.jsonl.reason.txt").read_text()
    assert "attempts_failed" in reason
    (request,) = daemon.tick("inbox")
    assert request.run_config == take_in_config(PLACEMENT, files=["good.jsonl"])


def test_from_the_inbox_to_builds_in_order_of_arrival(daemon: Daemon) -> None:
    put(daemon.home, "zebra.jsonl", 20)
    daemon.tick("inbox")
    put(daemon.home, "ant.jsonl", 25)
    put(daemon.home, "broken.docx")
    daemon.take_in(*daemon.tick("inbox"))
    daemon.take_in(*daemon.tick("inbox"))
    assert daemon.last.success
    assert daemon.home.catalog().keys() == ["ant-v1", "zebra-v1"]
    builds = daemon.tick("new_versions")
    assert [request.partition_key for request in builds] == ["zebra-v1", "ant-v1"]
    assert daemon.tick("new_versions") == []
    daemon.cursors["new_versions"] = None
    assert daemon.tick("new_versions") == [], "the run keys are known"
    assert (daemon.home.open().inbox / "rejected" / "broken.docx").exists()


def test_a_version_whose_partition_is_gone_is_not_built(daemon: Daemon) -> None:
    put(daemon.home, "sums.jsonl")
    daemon.tick("inbox")
    daemon.take_in(*daemon.tick("inbox"))
    daemon.instance.delete_dynamic_partition("dataset_version", "sums-v1")
    assert daemon.tick("new_versions") == []


def watched(daemon: Daemon, folder: Path, key: str = "drops-v1") -> None:
    folder.mkdir(exist_ok=True)
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    spec = tiny_spec(key, labels=None, data={"source": f"path:{folder}", "prompt": "prompt", "watch": True})
    daemon.home.catalog().register(parse_spec(as_toml(spec), "x"), folder)
    add_partition(daemon.instance, key)


def test_a_folder_that_grows_leads_to_one_run_and_one_version(daemon: Daemon, tmp_path: Path) -> None:
    watched(daemon, tmp_path / "drops")
    assert daemon.tick("watched_sources") == []
    daemon.take_in(*daemon.tick("watched_sources"))
    assert daemon.home.catalog().keys() == ["drops-v1"], "nothing has changed"
    assert daemon.tick("watched_sources") == []
    (tmp_path / "drops" / "b.jsonl").write_text(json.dumps({"prompt": "One more?"}) + "\n")
    assert daemon.tick("watched_sources") == [], "it may still be growing"
    requests = daemon.tick("watched_sources")
    assert len(requests) == 1
    daemon.take_in(*requests)
    assert daemon.home.catalog().keys() == ["drops-v1", "drops-v2"]
    assert [request.partition_key for request in daemon.tick("new_versions")] == ["drops-v2"]
    for _ in range(3):
        daemon.take_in(*daemon.tick("watched_sources"))
    assert daemon.home.catalog().keys() == ["drops-v1", "drops-v2"]


def test_a_watched_source_that_is_out_of_reach_is_said_and_asked_for_a_few_times(
    daemon: Daemon, tmp_path: Path
) -> None:
    watched(daemon, tmp_path / "drops")
    daemon.tick("watched_sources")
    daemon.take_in(*daemon.tick("watched_sources"))
    (tmp_path / "drops" / "a.jsonl").unlink()
    n_runs = 0
    for _ in range(MAX_ATTEMPTS + 3):
        requests = daemon.tick("watched_sources")
        n_runs += len(requests)
        daemon.take_in(*requests)
    assert n_runs == MAX_ATTEMPTS
    assert not daemon.last.success
    (tmp_path / "drops").rmdir()
    assert daemon.tick("watched_sources") == []
    assert "drops-v1" in daemon.skipped


def test_a_commit_that_moves_is_seen_without_reading_anything(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = ["a" * 40]
    monkeypatch.setattr("saerl_assets.storage.sources.resolve_commit", lambda _: commits[-1])
    monkeypatch.setattr("saerl_assets.automation.arrivals.HUB_SECONDS", 0)
    spec = tiny_spec("hub-v1", labels=None, data={"source": "hf:org/prompts@main", "prompt": "prompt", "watch": True})
    daemon.home.catalog().register(parse_spec(as_toml(spec), "x"), tmp_path)
    add_partition(daemon.instance, "hub-v1")
    assert [daemon.tick("watched_sources") for _ in range(3)] == [[], [], []]
    commits.append("b" * 40)
    requests = daemon.tick("watched_sources")
    daemon.take_in(*requests)
    assert daemon.home.catalog().keys() == ["hub-v1", "hub-v2"]
    assert daemon.home.version("hub-v2").sources["data"].digest == "b" * 40
    assert daemon.home.version("hub-v2").spec.parent == "hub-v1"
    assert [daemon.tick("watched_sources") for _ in range(2)] == [[], []]


def test_labels_are_given_to_their_version_once_for_each_content(daemon: Daemon) -> None:
    add_partition(daemon.instance, "sums-v1")
    put(daemon.home, "labels/sums-v1/graded.jsonl", 3)
    put(daemon.home, "labels/sums-v1/warm up/log_1.jsonl", 4)
    put(daemon.home, "labels/nobody-v1/graded.jsonl", 5)
    assert daemon.tick("late_labels") == []
    (request,) = daemon.tick("late_labels")
    assert request.partition_key == "sums-v1"
    inbox = Inbox(daemon.home.open())
    assert sorted((file.name, file.run_name) for file in inbox.labels("sums-v1")) == [
        ("graded.jsonl", ""),
        ("log_1.jsonl", "warm up"),
    ]
    assert "unknown_version" in (inbox.folder / "rejected" / "graded.jsonl.reason.txt").read_text()
    assert daemon.tick("late_labels") == []
    put(daemon.home, "labels/sums-v1/again.jsonl", 3)
    assert [daemon.tick("late_labels") for _ in range(2)] == [[], []], "the same bytes"
    assert inbox.waiting_labels() == []
    put(daemon.home, "labels/sums-v1/more.jsonl", 6)
    daemon.tick("late_labels")
    assert len(daemon.tick("late_labels")) == 1
