"""Failed runs are told of: by a function, a webhook or a command; other runs are not."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from saerl_assets.automation.alerts import COMMAND_VARIABLE, WEBHOOK_VARIABLE, Alert, alert_sensor, announce
from saerl_assets.domain.errors import SaerlError
from saerl_assets.placement import Placement, place

KEY = "alarming-v1"
PLACEMENT = Placement.parse("rl")
ERROR = SaerlError("spec_invalid", "k is -1.", where="clusters.k", remedy="Give at least 1.")
ALERT = Alert(KEY, "labels", "k is -1. Give at least 1. [spec_invalid]", "spec_invalid", "build", "0123456789")


@pytest.fixture(autouse=True)
def _nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (WEBHOOK_VARIABLE, COMMAND_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def failed_run(error: Exception = ERROR, name: str = "labels") -> Any:  # noqa: ANN401 - a context of Dagster's
    """A run that failed, as the sensor gets to see it."""

    @dg.asset(name=name, partitions_def=dg.StaticPartitionsDefinition([KEY]))
    def broken() -> int:
        raise error

    instance = dg.DagsterInstance.ephemeral()
    asset = place(broken, PLACEMENT) if name == "labels" else broken
    resources = {"rl_tables": dg.mem_io_manager}
    done = dg.materialize([asset], instance=instance, partition_key=KEY, resources=resources, raise_on_error=False)
    run = instance.get_run_by_id(done.run_id)
    assert run is not None
    selected = run if run.asset_selection else run.with_tags(run.tags)
    if not selected.asset_selection:
        selected = selected._replace(asset_selection=frozenset(asset.keys)) if hasattr(selected, "_replace") else run
    return dg.build_run_status_sensor_context(
        sensor_name="failed_runs",
        dagster_event=done.get_run_failure_event(),
        dagster_instance=instance,
        dagster_run=selected,
    ).for_run_failure()


def test_the_function_is_told_what_failed_and_what_to_do() -> None:
    told: list[Alert] = []
    sensor = alert_sensor(PLACEMENT, ["labels", "prompts"], told.append)
    assert sensor(failed_run()) is None
    (alert,) = told
    assert (alert.dataset_version, alert.stage, alert.code) == (KEY, "labels", "spec_invalid")
    assert alert.problem == "clusters.k: k is -1. Give at least 1. [spec_invalid]"
    assert alert.text.startswith(f"{KEY} failed at labels: clusters.k")


def test_a_defect_is_told_of_without_a_code() -> None:
    told: list[Alert] = []
    alert_sensor(PLACEMENT, ["labels"], told.append)(failed_run(ZeroDivisionError("by nothing")))
    assert told[0].code == ""
    assert "by nothing" in told[0].problem


def test_runs_of_other_assets_are_not_told_of() -> None:
    told: list[Alert] = []
    said = alert_sensor(PLACEMENT, ["labels"], told.append)(failed_run(name="somebody_elses"))
    assert isinstance(said, dg.SkipReason)
    assert told == []


def test_without_anybody_to_tell_the_sensor_says_how() -> None:
    said = alert_sensor(PLACEMENT, ["labels"], None)(failed_run())
    assert isinstance(said, dg.SkipReason)
    assert WEBHOOK_VARIABLE in str(said.skip_message)


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server on this machine and what it has received."""
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            received.append(json.loads(self.rfile.read(length)))
            self.send_response(500 if self.path == "/broken" else 204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()
        thread.join()


def test_a_webhook_gets_it_as_json(webhook: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch) -> None:
    address, received = webhook
    monkeypatch.setenv(WEBHOOK_VARIABLE, f"{address}/hook")
    alert_sensor(PLACEMENT, ["labels"], None)(failed_run())
    (body,) = received
    assert body["dataset_version"] == KEY
    assert body["code"] == "spec_invalid"
    assert body["text"].startswith(f"{KEY} failed at labels")


def test_a_command_gets_it_on_its_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "told me.json"
    program = tmp_path / "page.py"
    program.write_text("import sys\nopen(sys.argv[1], 'w').write(sys.stdin.read())\n")
    monkeypatch.setenv(COMMAND_VARIABLE, f"'{sys.executable}' '{program}' '{out}'")
    announce(ALERT)
    assert json.loads(out.read_text())["problem"] == ALERT.problem


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (WEBHOOK_VARIABLE, "{address}/broken"),
        (WEBHOOK_VARIABLE, "file:///etc/passwd"),
        (WEBHOOK_VARIABLE, "http://127.0.0.1:9/nobody"),
        (COMMAND_VARIABLE, "there-is-no-such-program --now"),
        (COMMAND_VARIABLE, "'not closed"),
        (COMMAND_VARIABLE, "false"),
    ],
)
def test_an_alert_that_cannot_be_sent_says_which_setting_to_put_right(
    variable: str, value: str, webhook: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value.format(address=webhook[0]))
    with pytest.raises(SaerlError, match=rf"Put {variable} right.*\[alert_failed\]"):
        announce(ALERT)


def test_nothing_is_sent_where_nothing_is_named() -> None:
    announce(ALERT)
