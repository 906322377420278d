"""Telling somebody that a run failed: which version, which stage, why, and what to do.

Belongs here: from a failed run to an alert, and the two ways of sending it that need no code. Does not belong here:
services; whoever wants one gives `build_definitions(on_failure=...)` a function.
"""

import json
import os
import shlex
import subprocess
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import dagster as dg
from dagster._core.storage.tags import PARTITION_NAME_TAG

from saerl_assets.automation.jobs import BUILD_VERSION
from saerl_assets.domain.errors import SaerlError
from saerl_assets.placement import Placement
from saerl_assets.resources.console import cause_of

WEBHOOK_VARIABLE = "SAERL_ALERT_WEBHOOK"
COMMAND_VARIABLE = "SAERL_ALERT_COMMAND"
LONGEST_SECONDS = 30


@dataclass(frozen=True)
class Alert:
    """A failed run."""

    dataset_version: str
    """Empty where the run was of no version."""
    stage: str
    """The first step that failed; empty where the run failed before its first."""
    problem: str
    """One line: what is wrong and what to do about it."""
    code: str
    """Of the error, for scripts; empty where it is a defect and none of ours."""
    job: str
    run_id: str

    @property
    def text(self) -> str:
        """One line for a chat."""
        what = f"{self.dataset_version or self.job} failed" + (f" at {self.stage}" if self.stage else "")
        return f"{what}: {self.problem} (run {self.run_id[:8]})"

    def as_json(self) -> str:
        """Every field, and `text`, which chat services show."""
        return json.dumps({"text": self.text, **asdict(self)})


def announce(alert: Alert) -> None:
    """Sends an alert to what the environment names; does nothing where it names nothing.

    SAERL_ALERT_WEBHOOK is a URL that gets the JSON by POST. SAERL_ALERT_COMMAND is a command line, started without a
    shell, that gets the JSON on its standard input.

    Raises:
        SaerlError: `alert_failed`; the sensor's page then shows it.
    """
    webhook, command = os.environ.get(WEBHOOK_VARIABLE), os.environ.get(COMMAND_VARIABLE)
    if webhook:
        _post(webhook, alert.as_json())
    if command:
        _start(command, alert.as_json())


def is_announced() -> bool:
    """Whether the environment names somebody to tell."""
    return bool(os.environ.get(WEBHOOK_VARIABLE) or os.environ.get(COMMAND_VARIABLE))


def alert_sensor(
    placement: Placement, tables: Sequence[str], on_failure: Callable[[Alert], None] | None
) -> dg.SensorDefinition:
    """The sensor that tells of failed runs of these assets, however they were started, and of no other runs.

    Args:
        placement: The names.
        tables: The tables that the assets fill.
        on_failure: Told of each; by default `announce`.
    """
    ours = {placement.key(table) for table in tables}

    @dg.run_failure_sensor(
        name=placement.name("failed_runs"),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description=(
            "Tells of failed runs: calls on_failure of build_definitions, else the webhook in "
            f"{WEBHOOK_VARIABLE} or the command in {COMMAND_VARIABLE}; without any of them it does nothing."
        ),
    )
    def failed_runs(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        run = context.dagster_run
        if run.job_name != placement.name(BUILD_VERSION) and not ours & set(run.asset_selection or ()):
            return dg.SkipReason(f"Run {run.run_id[:8]} made none of these assets.")
        if on_failure is None and not is_announced():
            return dg.SkipReason(f"Set {WEBHOOK_VARIABLE} or {COMMAND_VARIABLE} to be told of failed runs.")
        (on_failure or announce)(alert_of(context))
        return None

    return failed_runs


def alert_of(context: dg.RunFailureSensorContext) -> Alert:
    """What is known of a failed run."""
    run, failures = context.dagster_run, context.get_step_failure_events()
    first = failures[0] if failures else None
    told = first.step_failure_data.user_failure_data if first else None
    if first is None:
        problem = context.failure_event.message or "It failed before its first stage."
    else:
        problem = (told.description if told else None) or cause_of(first)
    code = told.metadata.get("code") if told else None
    return Alert(
        dataset_version=run.tags.get(PARTITION_NAME_TAG, ""),
        stage=(first.step_key or "").split("__")[-1] if first else "",
        problem=" ".join(problem.split()),
        code=str(code.value) if code else "",
        job=run.job_name,
        run_id=run.run_id,
    )


def _post(address: str, body: str) -> None:
    if not address.startswith(("https://", "http://")):
        raise _failed(address, "This is no address of the web.", WEBHOOK_VARIABLE)
    request = urllib.request.Request(address, body.encode(), {"Content-Type": "application/json"})  # noqa: S310 - as above
    try:
        with urllib.request.urlopen(request, timeout=LONGEST_SECONDS):  # noqa: S310 - as above
            pass
    except OSError as error:
        raise _failed(address, f"{error}.", WEBHOOK_VARIABLE) from error


def _start(command: str, body: str) -> None:
    try:
        subprocess.run(
            shlex.split(command), input=body, text=True, capture_output=True, check=True, timeout=LONGEST_SECONDS
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or ""
        raise _failed(command, f"{error}. {said}".strip(), COMMAND_VARIABLE) from error


def _failed(where: str, problem: str, variable: str) -> SaerlError:
    return SaerlError("alert_failed", problem, where=where, remedy=f"Put {variable} right; the next alert uses it.")
